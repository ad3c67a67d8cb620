//! `digest`, `sign` and `verify`: what makes a folder a bundle that others can trust.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use keygate_policies::bundle::{Bundle, Files, Manifest, SigningKey, VerifyingKey, verify as verify_files};
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, pem::PemObject as _};
use serde_json::json;

use super::{Output, Unusable, Verdict, open, say, unusable, usable};

const MANIFEST: &str = "manifest.json";
const SIGNATURES: &str = "SIGNATURES";

pub(super) fn digest(folder: &Path, revision: Option<u64>, output: Output) -> Result<Verdict, Unusable> {
    let mut files = folder_files(folder, output)?;
    let present = match files.get(MANIFEST) {
        None => None,
        Some(bytes) => {
            let manifest = Manifest::read(bytes);
            Some(manifest.ok_or_else(|| {
                let message =
                    "manifest.json is there and cannot be read: mend it, or delete it and give `--revision`";
                unusable(output, message)
            })?)
        }
    };
    let manifest = match present {
        Some(present) => present.updated(&files, revision.unwrap_or(present.revision)),
        None => Manifest::of(&files, revision.unwrap_or(1)),
    };
    let bytes = manifest.to_bytes();
    write(&folder.join(MANIFEST), &bytes, output)?;
    files.insert(MANIFEST, bytes);
    let revision = manifest.revision;
    // What names the bundle, usable or not.
    let read = Bundle::read(&files).map_err(|findings| findings.len());
    match output {
        Output::Text => say(&match &read {
            Ok(bundle) => format!("revision {revision}, {}\n", bundle.digest()),
            Err(found) => {
                format!("revision {revision}, not usable yet: see `keygate policy lint` ({found} found)\n")
            }
        }),
        Output::Json => say(&format!(
            "{:#}\n",
            json!({
                "ok": true,
                "revision": revision,
                "digest": read.as_ref().ok().map(Bundle::digest),
                "usable": read.is_ok(),
            })
        )),
    }
    Ok(Verdict::Fine)
}

pub(super) fn sign(folder: &Path, key: &Path, output: Output) -> Result<Verdict, Unusable> {
    let files = folder_files(folder, output)?;
    // Nobody should put a name under something that no server takes.
    let bundle = usable(&files, folder, output)?;
    let der = PrivatePkcs8KeyDer::from_pem_file(key).map_err(|error| key_error(key, &error, output))?;
    let key_pair =
        SigningKey::from_pkcs8(der.secret_pkcs8_der()).map_err(|error| key_error(key, &error, output))?;
    let text = key_pair.sign(&files).map_err(|error| unusable(output, error))?;
    write(&folder.join(SIGNATURES), text.as_bytes(), output)?;
    let (revision, digest, id) = (bundle.revision(), bundle.digest(), key_pair.verifying_key().id());
    match output {
        Output::Text => say(&format!("signed revision {revision}, {digest} with key {id}\n")),
        Output::Json => {
            say(&format!("{:#}\n", json!({ "ok": true, "revision": revision, "digest": digest, "key": id })))
        }
    }
    Ok(Verdict::Fine)
}

pub(super) fn verify(
    path: &Path,
    keys: &[PathBuf],
    need: Option<usize>,
    output: Output,
) -> Result<Verdict, Unusable> {
    let mut trusted: Vec<VerifyingKey> = Vec::new();
    for file in keys {
        let der =
            SubjectPublicKeyInfoDer::from_pem_file(file).map_err(|error| key_error(file, &error, output))?;
        let key = VerifyingKey::from_spki(&der).map_err(|error| key_error(file, &error, output))?;
        if !trusted.contains(&key) {
            trusted.push(key);
        }
    }
    let need = need.unwrap_or(trusted.len());
    if need == 0 || need > trusted.len() {
        let message =
            format!("`--need {need}` of {} different keys; accepted: 1 to {}", trusted.len(), trusted.len());
        return Err(unusable(output, message));
    }
    let files = open(path, output)?;
    // The signatures are of the manifest: that the files are those that it lists is the reader's part.
    let bundle = usable(&files, path, output)?;
    let verified = verify_files(&files, &trusted, need);
    match output {
        Output::Text => say(&match &verified {
            Ok(ids) => format!(
                "revision {}, {} is signed by {}\n",
                bundle.revision(),
                bundle.digest(),
                ids.join(", ")
            ),
            Err(error) => format!("{error}\n"),
        }),
        Output::Json => say(&format!(
            "{:#}\n",
            json!({
                "ok": verified.is_ok(),
                "revision": bundle.revision(),
                "digest": bundle.digest(),
                "signed_by": verified.as_ref().ok(),
                "error": verified.as_ref().err().map(ToString::to_string),
            })
        )),
    }
    Ok(if verified.is_ok() { Verdict::Fine } else { Verdict::Found })
}

fn folder_files(folder: &Path, output: Output) -> Result<Files, Unusable> {
    if !folder.is_dir() {
        return Err(unusable(output, format!("`{}` is no folder", folder.display())));
    }
    open(folder, output)
}

fn key_error(file: &Path, error: &dyn std::fmt::Display, output: Output) -> Unusable {
    unusable(output, format!("cannot use the key `{}`: {error}", file.display()))
}

/// Replaces a file whole. The name it has until then begins with a dot, which is no part of a bundle.
fn write(path: &Path, bytes: &[u8], output: Output) -> Result<(), Unusable> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let unfinished = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = std::fs::File::create(&unfinished)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&unfinished, path));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&unfinished);
        unusable(output, format!("cannot write `{}`: {error}", path.display()))
    })
}
