//! Columns of text for a terminal, and text that is broken into lines. Widths count the columns of a terminal, of which a
//! character may take none or two (UAX #11).

use unicode_width::UnicodeWidthStr as _;

/// Blanks before every line but the title.
pub const INDENT: &str = "  ";

/// Blanks between two columns.
const GAP: usize = 2;

/// Cells in rows; the first row is the heading, the first column names the rows and is left-aligned.
#[derive(Clone, Debug)]
pub struct Grid {
    rows: Vec<Vec<String>>,
    /// Other left-aligned columns: texts, not numbers.
    texts: Vec<usize>,
}

impl Grid {
    /// The first column left-aligned, all others right-aligned.
    #[must_use]
    pub fn new(rows: Vec<Vec<String>>) -> Self {
        Self { rows, texts: Vec::new() }
    }

    /// The cells, the heading first.
    #[must_use]
    pub fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// With these columns left-aligned too.
    #[must_use]
    pub fn with_texts(rows: Vec<Vec<String>>, texts: Vec<usize>) -> Self {
        Self { rows, texts }
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max().unwrap_or(0)
        };
        (0..columns).map(width).collect()
    }

    /// The width of [`Self::lines`], in columns of a terminal.
    #[must_use]
    pub fn width(&self) -> usize {
        let widths = self.widths();
        INDENT.len() + widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
    }

    /// All columns side by side, however wide.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines_of(&(0..self.widths().len()).collect::<Vec<_>>())
    }

    fn lines_of(&self, columns: &[usize]) -> Vec<String> {
        let widths = self.widths();
        let line = |row: &Vec<String>| {
            let cells = columns.iter().filter_map(|column| Some((*column, row.get(*column)?))).map(|(column, cell)| {
                // Not by a format's width, which counts characters.
                let blanks = " ".repeat(widths[column].saturating_sub(cell.width()));
                if column == 0 || self.texts.contains(&column) {
                    format!("{cell}{blanks}")
                } else {
                    format!("{blanks}{cell}")
                }
            });
            let line = format!("{INDENT}{}", cells.collect::<Vec<_>>().join(&" ".repeat(GAP)));
            line.trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }

    /// In lines at most `width` wide: columns that do not fit follow below, after the first one again.
    #[must_use]
    pub fn folded(&self, width: usize) -> Vec<String> {
        let widths = self.widths();
        let first = INDENT.len() + widths.first().copied().unwrap_or(0);
        let (mut parts, mut used) = (vec![vec![0]], first);
        for (column, wide) in widths.iter().enumerate().skip(1) {
            if used + GAP + wide > width && used > first {
                parts.push(vec![0]);
                used = first;
            }
            used += GAP + wide;
            if let Some(part) = parts.last_mut() {
                part.push(column);
            }
        }
        let mut lines = Vec::new();
        for part in parts {
            if !lines.is_empty() {
                lines.push(String::new());
            }
            lines.extend(self.lines_of(&part));
        }
        lines
    }
}

/// `text` in lines of at most `width` columns, the first one prefixed by `first`, the others by `rest`.
#[must_use]
pub fn wrap(text: &str, first: &str, rest: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = first.to_owned();
    let mut used = line.width();
    let mut empty = true;
    for word in text.split_whitespace() {
        let length = word.width();
        if !empty && used + 1 + length > width {
            lines.push(std::mem::replace(&mut line, rest.to_owned()));
            used = rest.width();
            empty = true;
        }
        if !empty {
            line.push(' ');
            used += 1;
        }
        line.push_str(word);
        used += length;
        empty = false;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wide characters (CJK) take two columns, combining ones none.
    #[test]
    fn columns_stand_below_each_other_whatever_the_characters() {
        let row = |name: &str, value: &str| vec![name.to_owned(), value.to_owned()];
        let grid =
            Grid::new(vec![row("topic", "p99"), row("\u{8a02}\u{55ae}", "1.5 \u{b5}s"), row("cafe\u{301}", "12 ms")]);
        let lines = grid.lines();
        assert_eq!(lines, ["  topic     p99", "  \u{8a02}\u{55ae}   1.5 \u{b5}s", "  cafe\u{301}    12 ms"]);
        assert!(lines.iter().all(|line| line.width() == grid.width()), "{lines:?}");
        let wrapped = wrap("\u{8a02}\u{55ae} \u{8a02}\u{55ae} a", "", "", 9);
        assert_eq!(wrapped, ["\u{8a02}\u{55ae} \u{8a02}\u{55ae}", "a"]);
    }
}
