//! Formats tables for people: columns as wide as their widest cell, and nothing in a cell that controls the terminal.

/// The gap between columns.
const GAP: &str = "   ";

/// Formats rows; the first is the header. Every line ends with a newline and without trailing blanks.
pub(crate) fn render(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join(GAP).trim_end());
        text.push('\n');
    }
    text
}

/// Replaces control characters, so that text from outside stays on one line and cannot control the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_blanks() {
        let rows = [vec!["ID".into(), "NAME".into()], vec!["abc".into(), "x".into()]];
        assert_eq!(render(&rows), "ID    NAME\nabc   x\n");
        assert_eq!(render(&[]), "");
        let forged = [vec!["a\u{1b}[2J\nb".to_owned(), "c".to_owned()]];
        assert_eq!(render(&forged), "a [2J b   c\n");
    }
}
