//! Bounds for text that comes from guests, images and consoles: hostile until cut and cleaned.

use smol_str::SmolStr;

/// Longest reason (one CamelCase word), in bytes.
pub const REASON_LENGTH_MAX: usize = 64;
/// Longest message in a status, in bytes.
pub const MESSAGE_LENGTH_MAX: usize = 2048;
/// Longest console excerpt in a message, in bytes.
pub const CONSOLE_LENGTH_MAX: usize = 1024;
/// Longest image digest, in bytes (`sha256:` and 64 digits, with room).
pub const DIGEST_LENGTH_MAX: usize = 160;

/// A reason: its letters and digits only, cut.
#[must_use]
pub fn reason(text: &str) -> SmolStr {
    text.chars().filter(char::is_ascii_alphanumeric).take(REASON_LENGTH_MAX).collect()
}

/// A message: control characters replaced, cut at [`MESSAGE_LENGTH_MAX`].
#[must_use]
pub fn message(text: &str) -> String {
    head(&printable(text), MESSAGE_LENGTH_MAX)
}

/// A digest: printable ASCII without spaces, cut.
#[must_use]
pub fn digest(text: &str) -> SmolStr {
    text.chars().filter(char::is_ascii_graphic).take(DIGEST_LENGTH_MAX).collect()
}

/// The last whole lines of a console that fit in [`CONSOLE_LENGTH_MAX`].
#[must_use]
pub fn console_tail(text: &str) -> String {
    let text = printable(text);
    let text = text.trim_end();
    if text.len() <= CONSOLE_LENGTH_MAX {
        return text.to_owned();
    }
    let mut start = text.len() - CONSOLE_LENGTH_MAX;
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let tail = &text[start..];
    tail.split_once('\n').map_or(tail, |(_, lines)| lines).to_owned()
}

/// A sentence, followed by what the console said last, if anything.
#[must_use]
pub fn with_console(sentence: &str, console: &str) -> String {
    let console = console_tail(console);
    let sentence = head(sentence, MESSAGE_LENGTH_MAX - CONSOLE_LENGTH_MAX - 64);
    if console.is_empty() {
        format!("{sentence}; the console said nothing")
    } else {
        format!("{sentence}; last console lines:\n{console}")
    }
}

/// Without what moves the cursor or rings the bell: terminal sequences (ECMA-48: ESC, `[`, parameters, a final byte)
/// are left out, other control characters replaced.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => {
                if chars.next() == Some('[') {
                    chars.by_ref().find(|c| !matches!(c, '\u{20}'..='\u{3f}'));
                }
            }
            '\r' => {}
            '\n' | '\t' => out.push(c),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn head(text: &str, limit: usize) -> String {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn console_keeps_the_last_whole_lines() {
        let long: String = (0..500).map(|n| format!("line {n}\r\n")).collect();
        let tail = console_tail(&long);
        assert!(tail.starts_with("line ") && tail.ends_with("line 499"), "{tail}");
        assert_eq!(console_tail("\u{1b}c\u{1b}[?7la\u{1b}[0m\u{7}\n\n\u{1b}["), "a\u{fffd}");
    }

    proptest! {
        #[test]
        fn every_text_is_bounded(text in ".{0,3000}") {
            prop_assert!(reason(&text).len() <= REASON_LENGTH_MAX);
            prop_assert!(message(&text).len() <= MESSAGE_LENGTH_MAX);
            prop_assert!(console_tail(&text).len() <= CONSOLE_LENGTH_MAX);
            prop_assert!(with_console(&text, &text).len() <= MESSAGE_LENGTH_MAX);
        }
    }
}
