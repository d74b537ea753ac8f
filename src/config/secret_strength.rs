//! Recognizes secrets that do not protect anything: placeholders that nothing has replaced, and texts that are easy to
//! guess.

use std::collections::BTreeSet;

/// Texts that occur only in placeholders and examples. They are compared in lower case, without `-`, `_` and spaces.
const EXAMPLES: [&str; 8] =
    ["changeme", "changethis", "replaceme", "replacethis", "yoursecret", "insertsecret", "placeholder", "secrethere"];
/// The minimum number of different bytes in a secret that signs.
const DISTINCT_BYTES_MIN: usize = 10;
/// The maximum length of a part whose repetitions form the whole secret.
const REPEATED_BYTES_MAX: usize = 8;

/// Returns what is wrong with a text that is a placeholder or has surrounding whitespace, or `None`.
pub(super) fn placeholder(text: &str) -> Option<&'static str> {
    const UNREPLACED: &str = "is a placeholder that nothing has replaced: configuration files are not templates, so write \
                              the value or set the environment variable of this key";
    if text.trim() != text {
        return Some("begins or ends with whitespace: remove it");
    }
    let is_enclosed = |start: &str, end: &str| text.find(start).is_some_and(|at| text[at..].contains(end));
    let is_tag = text.starts_with('<') && text.ends_with('>');
    let is_variable = text.strip_prefix('$').is_some_and(|name| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    });
    let plain: String = text.to_lowercase().chars().filter(|c| !matches!(c, '-' | '_' | ' ')).collect();
    let is_example = EXAMPLES.iter().any(|example| plain.contains(example));
    let is_placeholder = is_enclosed("${", "}")
        || is_enclosed("{{", "}}")
        || is_enclosed("$(", ")")
        || is_tag
        || is_variable
        || is_example;
    is_placeholder.then_some(UNREPLACED)
}

/// Returns what is wrong with a secret that signs and is easy to guess, or `None`.
pub(super) fn weakness(secret: &str) -> Option<String> {
    let bytes = secret.as_bytes();
    let is_repeated =
        |length: usize| bytes.len() >= 2 * length && bytes.iter().skip(length).zip(bytes).all(|(a, b)| a == b);
    if (1..=REPEATED_BYTES_MAX).any(is_repeated) {
        return Some(format!("repeats a short text: use a random secret, such as the output of {GENERATOR}"));
    }
    let distinct = bytes.iter().collect::<BTreeSet<_>>().len();
    (distinct < DISTINCT_BYTES_MIN).then(|| {
        format!("has only {distinct} different characters: use a random secret, such as the output of {GENERATOR}")
    })
}

/// A command that prints a random secret of 64 characters.
const GENERATOR: &str = "`openssl rand -hex 32`";

/// Returns what is wrong with a path that a shell would expand, or `None`.
pub(super) fn shell_path(path: &str) -> Option<&'static str> {
    let is_home = path == "~" || path.starts_with("~/");
    (is_home || path.contains('$')).then_some("contains `~` or `$`, which only a shell expands: write the whole path")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::errors;

    #[test]
    fn placeholders_and_weak_secrets_are_recognized() {
        for text in [
            "${GLASSHOUSE_JWT_SECRET_PRODUCTION}",
            "prefix-${SECRET}",
            "{{ jwt_secret }}",
            "$(cat /run/secret)",
            "$JWT_SECRET",
            "<the secret of the issuer>",
            "change-me",
            "please CHANGE_ME before production, thank you",
            "your-secret-your-secret-your-secret",
            " a8f5f167f44f4964e6c998dee827110c",
            "a8f5f167f44f4964e6c998dee827110c\n",
        ] {
            assert!(placeholder(text).is_some(), "{text}");
        }
        for text in [
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "abcabcabcabcabcabcabcabcabcabcabca",
            "01010011010110101011010101010101",
        ] {
            assert!(weakness(text).is_some(), "{text}");
        }
        for text in
            ["a8f5f167f44f4964e6c998dee827110c", "Zg$x{7Kq}w<9>Lp!rT2#vB5&nM8*cY0^", "p4$$w0rd-of-the-1ssuer-2026-Lima"]
        {
            assert_eq!((placeholder(text), weakness(text)), (None, None), "{text}");
        }
        for (path, is_refused) in [("~/lake", true), ("$HOME/lake", true), ("/data/${X}", true), ("/data/a~b", false)] {
            assert_eq!(shell_path(path).is_some(), is_refused, "{path}");
        }
    }

    #[test]
    fn placeholders_are_refused_as_secrets_and_paths() {
        let secret = "GLASSHOUSE__AUTH__ISSUERS__DEV__SECRET";
        for (name, value, expected) in [
            (secret, "${GLASSHOUSE_JWT_SECRET_PRODUCTION}", "is a placeholder that nothing has replaced"),
            (secret, "{{ the_secret_of_the_issuer_of_tokens }}", "is a placeholder that nothing has replaced"),
            (secret, "please-change-me-to-a-random-secret-of-32", "is a placeholder that nothing has replaced"),
            (secret, "0123456789abcdef0123456789abcdef ", "begins or ends with whitespace: remove it"),
            (secret, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "repeats a short text"),
            (secret, "abacabadabacabaeabacabadabacabafabac", "has only 6 different characters"),
            ("GLASSHOUSE__AUTH__HANDLE_SECRET", "$HANDLE_SECRET", "is a placeholder that nothing has replaced"),
            (
                "GLASSHOUSE__LAKE__OPTIONS__AWS_SECRET_ACCESS_KEY",
                "${KEY}",
                "is a placeholder that nothing has replaced",
            ),
            ("GLASSHOUSE__FLIGHT__TLS_KEY", "~/server.key", "which only a shell expands"),
            ("GLASSHOUSE__FLIGHT__TLS_KEY", "$HOME/server.key", "which only a shell expands"),
            ("GLASSHOUSE__LAKE__URL", "~/lake", "which only a shell expands"),
        ] {
            let errors = errors("", &[(name, value)]);
            assert!(errors.contains(expected), "{value}: {errors}");
        }
    }
}
