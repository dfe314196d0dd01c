//! Texts of callers, cut to lengths that are fit for messages.

/// Most characters of a caller's text in a message.
const SHOWN_CHARS_MAX: usize = 100;

/// A caller's text as a message shows it: up to 100 characters, without those that would
/// break a line; what is missing is shown by `…`.
#[must_use]
pub fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).filter(|c| !c.is_control()).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// A text of up to so many bytes, whole characters; what is missing is shown by `…`.
#[must_use]
pub fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max.saturating_sub('…'.len_utf8())));
        text.push('…');
    }
    text
}
