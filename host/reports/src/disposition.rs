//! The file's name in a `Content-Disposition` header (RFC 6266), which clients write in many ways.

use percent_encoding::percent_decode_str;

/// The name of the file that a header gives, `filename*` (RFC 8187, UTF-8 or Latin-1) before `filename`. `None` if it gives
/// none or an empty one. The name is as the sender wrote it: clean it before it is used.
pub fn file_name(header: &[u8]) -> Option<String> {
    let text = String::from_utf8(header.to_vec())
        .unwrap_or_else(|not_utf8| not_utf8.as_bytes().iter().map(|b| char::from(*b)).collect());
    let (mut plain, mut extended) = (None, None);
    let mut rest = after_value(&text);
    while let Some((name, value, after)) = parameter(rest) {
        match name.to_ascii_lowercase().as_str() {
            "filename" if plain.is_none() => plain = Some(value),
            "filename*" if extended.is_none() => extended = decode(&value),
            _ => {}
        }
        rest = after;
    }
    extended.or(plain).filter(|name| !name.trim().is_empty())
}

/// Skips `attachment`, up to the first parameter. Some clients leave it out.
fn after_value(text: &str) -> &str {
    let end = text.find([';', '=']).unwrap_or(text.len());
    if text[end..].starts_with('=') { text } else { &text[end..] }
}

/// The next `name=value` and what follows.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let text = text.trim_start_matches([';', ' ', '\t']);
    let (name, rest) = text.split_once('=')?;
    let rest = rest.trim_start();
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find(';').unwrap_or(rest.len());
        return Some((name.trim(), rest[..end].trim().to_owned(), &rest[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((name.trim(), value, &quoted[at + 1..])),
            // Only quotes and backslashes are escaped; a Windows path's backslash stands for itself.
            '\\' => match chars.peek() {
                Some((_, next @ ('"' | '\\'))) => {
                    value.push(*next);
                    chars.next();
                }
                _ => value.push('\\'),
            },
            c => value.push(c),
        }
    }
    Some((name.trim(), value, ""))
}

/// `charset'language'percent-encoded`
fn decode(value: &str) -> Option<String> {
    let mut parts = value.splitn(3, '\'');
    let (charset, _, text) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes: Vec<u8> = percent_decode_str(text).collect();
    match charset.to_ascii_lowercase().as_str() {
        "utf-8" => String::from_utf8(bytes).ok(),
        "iso-8859-1" => Some(bytes.into_iter().map(char::from).collect()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(header: &str) -> Option<String> {
        file_name(header.as_bytes())
    }

    #[test]
    fn the_ways_of_clients_are_understood() {
        let is = |header: &str, want: &str| assert_eq!(name(header).as_deref(), Some(want), "{header}");
        is("attachment; filename=test.txt", "test.txt");
        is("attachment; filename=\"a b.txt\"", "a b.txt");
        is("form-data; name=\"f\"; FileName = \"x;y.txt\" ; size=3", "x;y.txt");
        is("attachment;filename=\"q\\\"uote.txt\"", "q\"uote.txt");
        is("attachment; filename=\"C:\\dir\\f.txt\"", "C:\\dir\\f.txt");
        is("attachment; filename=\"x.txt\"; filename*=UTF-8''na%C3%AFve.txt", "naïve.txt");
        is("attachment; filename*=iso-8859-1'en'%A3.txt", "£.txt");
        is("attachment; filename=\"Grüße.txt\"", "Grüße.txt");
        is("filename=bare.txt", "bare.txt");
        is("attachment; filename=\"open.txt", "open.txt");
        assert_eq!(file_name(b"attachment; filename=\"\xfcml.txt\"").as_deref(), Some("üml.txt"));
    }

    #[test]
    fn headers_without_a_name_give_none() {
        for header in [
            "",
            "attachment",
            "attachment;",
            "inline; size=3",
            "attachment; filename=",
            "attachment; filename=\" \"",
        ] {
            assert_eq!(name(header), None, "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_answered(header in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = file_name(&header);
        }

        #[test]
        fn quoted_names_come_back(name in "[^\\p{Cc}\\\\\"]{1,30}") {
            prop_assume!(!name.trim().is_empty());
            let header = format!("attachment; filename=\"{name}\"");
            prop_assert_eq!(file_name(header.as_bytes()), Some(name));
        }
    }
}
