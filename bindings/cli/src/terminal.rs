// SPDX-License-Identifier: BSD-2-Clause
//! Drawing on a terminal: what it can show, and lines that are redrawn in place.

use std::env;
use std::io::{self, IsTerminal, Write};

use terminal_size::{Height, Width, terminal_size_of};

/// What the terminal can show.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Style {
    /// Colours and other attributes.
    pub(crate) colour: bool,
    /// Characters beyond ASCII.
    pub(crate) unicode: bool,
}

impl Style {
    /// What this terminal can show, as far as its user has told.
    pub(crate) fn of_terminal() -> Style {
        Style { colour: !is_set("NO_COLOR"), unicode: is_utf8() }
    }

    /// The text in a colour, if there are colours.
    pub(crate) fn paint(self, paint: Paint, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        // Select Graphic Rendition of ECMA-48.
        let code = match paint {
            Paint::Bold => "1",
            Paint::Dim => "2",
            Paint::Red => "31",
            Paint::Green => "32",
            Paint::Yellow => "33",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// The text, without characters that the terminal does not have.
    pub(crate) fn spell(self, text: &str) -> String {
        if self.unicode { text.to_owned() } else { text.replace('±', "+-").replace('·', "|") }
    }
}

/// How a text looks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Paint {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
}

/// The colour of a loss, a fraction from 0 to 1.
pub(crate) fn paint_of_loss(loss: f64) -> Paint {
    match loss {
        ..0.01 => Paint::Green,
        ..0.1 => Paint::Yellow,
        _ => Paint::Red,
    }
}

/// Columns and rows of the terminal that standard output is; `None` if it is none.
pub(crate) fn size() -> Option<(usize, usize)> {
    let stdout = io::stdout();
    let size = terminal_size_of(&stdout).filter(|_| stdout.is_terminal());
    size.map(|(Width(columns), Height(rows))| (columns.into(), rows.into()))
}

/// Lines on a terminal that are drawn again and again over what was drawn before.
#[derive(Default)]
pub(crate) struct Canvas {
    drawn: usize,
    /// Whether it has the whole screen.
    full: bool,
}

impl Canvas {
    /// Begins where the cursor is. It would flicker, and is hidden until the end (DECTCEM).
    pub(crate) fn open() -> io::Result<Canvas> {
        write_out("\x1b[?25l")?;
        Ok(Canvas::default())
    }

    /// Begins on a screen of its own: what was there comes back at the end (xterm's control
    /// sequences, mode 1049).
    pub(crate) fn open_full() -> io::Result<Canvas> {
        write_out("\x1b[?1049h\x1b[?25l")?;
        Ok(Canvas { drawn: 0, full: true })
    }

    /// Draws `lines`, all of which must be within reach of the cursor: fewer than the rows.
    pub(crate) fn redraw(&mut self, lines: &[String]) -> io::Result<()> {
        write_out(&self.frame(lines))
    }

    fn frame(&mut self, lines: &[String]) -> String {
        // Back to the first line (CUP, CUU); a line is erased before it is drawn (EL), and what is
        // below the last one after it (ED). Behind a line that fills the row, the cursor stands on
        // its last character, which would be erased. Nothing wraps while the window is made
        // narrower (DECAWM).
        let mut text = "\x1b[?7l".to_owned();
        if self.full {
            text += "\x1b[H";
        } else if self.drawn > 0 {
            text += &format!("\x1b[{}A", self.drawn);
        }
        for line in lines {
            text += &format!("\r\x1b[K{line}\n");
        }
        text += "\x1b[J\x1b[?7h";
        self.drawn = lines.len();
        text
    }

    /// Takes what was drawn away.
    pub(crate) fn erase(&mut self) -> io::Result<()> {
        let drawn = std::mem::take(&mut self.drawn);
        if drawn > 0 { write_out(&format!("\x1b[{drawn}A\r\x1b[J")) } else { Ok(()) }
    }
}

impl Drop for Canvas {
    fn drop(&mut self) {
        // The cursor is back; if the terminal is gone, nobody misses it.
        let _ = write_out(if self.full { "\x1b[?25h\x1b[?1049l" } else { "\x1b[?25h" });
    }
}

/// Writes to standard output at once.
pub(crate) fn write_out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// A text in lines of at most `width` columns.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if columns(line) + 1 + columns(word) <= width => {
                *line += &format!(" {word}")
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The text in at most `width` columns: its end gives way to dots.
pub(crate) fn clipped(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let dots = width.min(3);
    text.chars().take(width - dots).chain(std::iter::repeat_n('.', dots)).collect()
}

/// A name in at most `width` columns: its middle gives way to dots, since names of bridges differ at
/// the begin or in the port.
pub(crate) fn shortened(name: &str, width: usize) -> String {
    let long = columns(name);
    if long <= width {
        return name.to_owned();
    }
    let kept = width.saturating_sub(2);
    let tail = kept / 2;
    let head = name.chars().take(kept - tail);
    head.chain("..".chars()).chain(name.chars().skip(long - tail)).collect()
}

/// A text from elsewhere, such as the name of a path: it must not draw or colour anything.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Columns that a text takes, each character one.
pub(crate) fn columns(text: &str) -> usize {
    text.chars().count()
}

/// Whether a variable is set to something (as <https://no-color.org> has it).
fn is_set(variable: &str) -> bool {
    env::var_os(variable).is_some_and(|value| !value.is_empty())
}

/// Whether the locale says that the terminal shows UTF-8 (locale(7)).
fn is_utf8() -> bool {
    let values = ["LC_ALL", "LC_CTYPE", "LANG"].map(|variable| env::var(variable).ok());
    let first = values.into_iter().flatten().find(|value| !value.is_empty());
    first.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.ends_with("utf-8") || locale.ends_with("utf8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_fills_the_row_is_drawn_whole() {
        let mut canvas = std::mem::ManuallyDrop::new(Canvas::default());
        let [first, second] = [(); 2].map(|()| canvas.frame(&["abc".to_owned()]));

        // Nothing is erased between a line and the next one.
        assert_eq!(first, "\x1b[?7l\r\x1b[Kabc\n\x1b[J\x1b[?7h");
        assert_eq!(second, "\x1b[?7l\x1b[1A\r\x1b[Kabc\n\x1b[J\x1b[?7h");
    }

    #[test]
    fn a_text_is_wrapped_between_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("one two three", 6), ["one", "two", "three"]);
    }

    #[test]
    fn what_does_not_fit_ends_in_dots() {
        assert_eq!(clipped("bridge1", 7), "bridge1");
        assert_eq!(clipped("bridge1.example", 7), "brid...");
        assert_eq!(clipped("äöüäöü", 5), "äö...");
        assert_eq!(clipped("abc", 2), "..");
    }

    #[test]
    fn a_long_name_keeps_its_begin_and_its_port() {
        assert_eq!(shortened("bridge1.example:4000", 20), "bridge1.example:4000");
        assert_eq!(shortened("bridge1.example:4000", 15), "bridge1..e:4000");
        assert_eq!(shortened("äöüäöü", 4), "ä..ü");
    }

    #[test]
    fn a_text_from_elsewhere_cannot_colour_the_terminal() {
        assert_eq!(harmless("a\x1b[31mb\n"), "a?[31mb?");
    }
}
