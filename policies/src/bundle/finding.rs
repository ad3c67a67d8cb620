//! What is wrong with a bundle, or looks wrong: one line of `lint`.

use std::fmt;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// The bundle cannot be used.
    Error,
    /// It can be used, and probably says something else than was meant.
    Warning,
}

/// Declares the rules once: their names are stable, because comments and CI scripts hold them.
macro_rules! rules {
    ($($variant:ident $name:literal $severity:ident $about:literal;)*) => {
        /// Every rule that a bundle is held against.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Rule { $($variant),* }

        impl Rule {
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            pub fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity),* }
            }

            /// What the rule looks for, in one line.
            pub fn about(self) -> &'static str {
                match self { $(Self::$variant => $about),* }
            }
        }
    };
}

rules! {
    FileUnknown "file-unknown" Error "a file of a name that no bundle has";
    FileUnlisted "file-unlisted" Error "a file that the manifest does not list";
    FileMissing "file-missing" Error "a file that must be there and is not";
    FileDigest "file-digest" Error "a file that is not the one whose digest the manifest lists";
    FileLimit "file-limit" Error "a file, line, row count or name beyond the limits";
    FileEncoding "file-encoding" Error "text that is not UTF-8, or holds quotes or characters that cannot be seen";
    ManifestInvalid "manifest-invalid" Error "a manifest that is not of the documented form";
    ManifestVersion "manifest-version" Error "a bundle for a newer Keygate";
    ModelUnsupported "model-unsupported" Error "a model that means something else than decisions do";
    ModelDefaultAllow "model-default-allow" Error "a model that allows what no row denies";
    EffectUnsupported "effect-unsupported" Error "an effect that is neither allow nor deny";
    RowSection "row-section" Error "a row of an unknown section, or in the wrong file";
    RowArity "row-arity" Error "a row with too few or too many columns";
    RowValue "row-value" Error "a subject, tenant or action that is not of an accepted form";
    PatternInvalid "pattern-invalid" Error "a pattern that does not compile to an interval of keys";
    GlobNotAtEnd "glob-not-at-end" Error "a `*` before the end of a pattern";
    ConditionInvalid "condition-invalid" Error "a condition that is unknown, repeated or not of its form";
    RoleUnknown "role-unknown" Error "a role that is held and for which there is no row";
    RoleCycle "role-cycle" Error "a role that holds itself";
    RoleDepth "role-depth" Error "a chain of more than ten roles";
    TestInvalid "test-invalid" Error "a test that is not of the documented form";
    PrefixWithoutSeparator "prefix-without-separator" Warning "a prefix that neighbours of the name fall under too";
    DirectoryAsKey "directory-as-key" Warning "one key that reads like a prefix (`grant /` without `--prefix`)";
    RegexMetacharacters "regex-metacharacters" Warning "signs of a regular expression, which a pattern is not";
    RowDuplicate "row-duplicate" Warning "a row that was there before";
    RowShadowed "row-shadowed" Warning "a row that changes nothing because another says as much";
    UserWithoutRole "user-without-role" Warning "a user with rights of its own and no role";
    RoleWithoutUser "role-without-user" Warning "a role that nobody holds";
    SubjectWildcard "subject-wildcard" Warning "rights for everybody who has logged in";
    TenantWildcard "tenant-wildcard" Warning "a row for every tenant";
    TenantOverlap "tenant-overlap" Warning "a row for every tenant that reaches into keys of a tenant's own rows";
    PolicyWritable "policy-writable" Warning "a subject that may change the policy";
    DenyOfRoot "deny-of-root" Warning "a deny row for the platform's root, whom no row binds";
    DenyOfGroup "deny-of-group" Warning "a deny row for a group, which does not bind who logs in with a password";
    TenantImpossible "tenant-impossible" Warning "a row for a tenant that there cannot be";
    VerbOfPlatform "verb-of-platform" Warning "an action on the whole server, in a tenant's row";
    RowExpired "row-expired" Warning "a row whose time is over";
}

/// One thing that was found.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Finding {
    pub file: String,
    /// From 1; 0 where it is about the file as a whole.
    pub line: u32,
    /// The column of the row, by the name that the format page gives it.
    pub column: Option<&'static str>,
    pub rule: Rule,
    pub message: String,
    /// What would be accepted there.
    pub accepted: Option<String>,
}

impl Finding {
    pub fn new(rule: Rule, file: &str, line: u32, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, column: None, rule, message: message.into(), accepted: None }
    }

    pub fn column(mut self, column: &'static str) -> Self {
        self.column = Some(column);
        self
    }

    pub fn accepted(mut self, accepted: impl Into<String>) -> Self {
        self.accepted = Some(accepted.into());
        self
    }

    pub fn severity(&self) -> Severity {
        self.rule.severity()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity() {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}:{}: {severity}: ", self.file, self.line)?;
        if let Some(column) = self.column {
            write!(f, "{column}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(accepted) = &self.accepted {
            write!(f, "; accepted: {accepted}")?;
        }
        write!(f, " [{}]", self.rule.name())
    }
}
