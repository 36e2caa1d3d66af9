//! Columns of text for a terminal, and text that is broken into lines.

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
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        (0..columns).map(width).collect()
    }

    /// The width of [`Self::lines`], in characters.
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
                let width = widths[column];
                if column == 0 || self.texts.contains(&column) {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            });
            let line = format!("{INDENT}{}", cells.collect::<Vec<_>>().join(&" ".repeat(GAP)));
            line.trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }

    /// In lines of at most `width` characters: columns that do not fit follow below, after the first one again.
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

/// `text` in lines of at most `width` characters, the first one prefixed by `first`, the others by `rest`.
#[must_use]
pub fn wrap(text: &str, first: &str, rest: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = first.to_owned();
    let mut used = line.chars().count();
    let mut empty = true;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if !empty && used + 1 + length > width {
            lines.push(std::mem::replace(&mut line, rest.to_owned()));
            used = rest.chars().count();
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
