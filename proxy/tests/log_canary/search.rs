//! Looks for one text in every form in which a program may print it.

pub(crate) struct Search {
    /// (what the form is called, how it looks).
    needles: Vec<(&'static str, Vec<u8>)>,
}

impl Search {
    /// `secret` must be letters and digits: those look alike in text, in a Debug of text, in a URL and in JSON.
    pub(crate) fn of(secret: &str) -> Self {
        assert!(secret.len() >= 10 && secret.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{secret}");
        let bytes = secret.as_bytes();
        let join = |form: &dyn Fn(&u8) -> String, between: &str| {
            bytes.iter().map(form).collect::<Vec<_>>().join(between).into_bytes()
        };
        let mut needles = vec![
            ("text", bytes.to_vec()),
            ("hexadecimal", join(&|byte| format!("{byte:02x}"), "")),
            ("numbers", join(&|byte| byte.to_string(), ",")),
            ("reversed", bytes.iter().rev().copied().collect()),
        ];
        // Base64 looks different with what comes before; letters of three bytes depend on those alone.
        for skipped in 0..3 {
            let whole = &bytes[skipped..];
            needles.push(("base64", base64(&whole[..whole.len() / 3 * 3])));
        }
        Self { needles }
    }

    /// Every form that is there, with what surrounds it.
    pub(crate) fn hits(&self, text: &[u8]) -> Vec<String> {
        // No case of letters hides a hit, and nothing tells a list of numbers over several lines from one in a line.
        let lower = text.to_ascii_lowercase();
        let squeezed: Vec<u8> = lower.iter().filter(|byte| !byte.is_ascii_whitespace()).copied().collect();
        let mut hits = Vec::new();
        for (form, needle) in &self.needles {
            let (text, needle) = match *form {
                "base64" => (text, needle.clone()),
                "numbers" => (&squeezed[..], needle.clone()),
                _ => (&lower[..], needle.to_ascii_lowercase()),
            };
            if let Some(at) = find(text, &needle) {
                let context = &text[at.saturating_sub(200)..(at + needle.len() + 60).min(text.len())];
                hits.push(format!("as {form}: {}", String::from_utf8_lossy(context)));
            }
        }
        hits
    }
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    let mut from = 0;
    // A look at each byte is slow in a debug build, and this is not.
    while let Some(at) = text.get(from..)?.iter().position(|byte| *byte == needle[0]) {
        if text[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::new();
    for three in bytes.chunks(3) {
        let number = three.iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
        text.extend([18, 12, 6, 0].map(|shift| LETTERS[number >> shift & 63]));
    }
    text
}

#[test]
fn every_form_of_a_secret_is_found() {
    let secret = "Kanarienvogel7";
    let search = Search::of(secret);
    let bytes = bytes::Bytes::from_static(b"\0\"Kanarienvogel7\"\xff");
    let json = serde_json::json!({ "error": format!("{secret:?}") });
    let forms = [
        format!("{secret:?}"),
        format!("{bytes:?}"),
        format!("{:?}", secret.as_bytes()),
        format!("{:#?}", secret.as_bytes()),
        format!("{:?}", format!("{bytes:?}")),
        json.to_string(),
        secret.to_uppercase(),
        secret.bytes().map(|byte| format!("{byte:02X}")).collect(),
        "xS2FuYXJpZW52b2dlbDc=".to_owned(),
    ];
    for form in &forms {
        assert_eq!(search.hits(form.as_bytes()).len(), 1, "{form}");
    }
    for before in ["", "a", "ab", "abc"] {
        let encoded = base64(format!("{before}{secret}!!!!").as_bytes());
        assert_eq!(search.hits(&encoded).len(), 1, "behind `{before}`");
    }
    assert!(search.hits(b"Kanarienvogel of 14 bytes").is_empty());
}
