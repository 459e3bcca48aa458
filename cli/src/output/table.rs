//! Tables as kubectl prints them: left-aligned columns, no lines.

use comfy_table::{ContentArrangement, Table, presets};

/// Spaces between columns.
const GAP: u16 = 3;

/// A header and rows, as text that ends with a line break; without rows, only the header.
pub(crate) fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    print(Some(header), rows, &widths(header, rows))
}

/// How wide the columns of such a table are.
pub(crate) fn widths(header: &[&str], rows: &[Vec<String>]) -> Vec<usize> {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    widths
}

/// One more row below a table that was printed with these widths.
pub(crate) fn render_row(row: &[String], widths: &[usize]) -> String {
    print(None, std::slice::from_ref(&row.to_vec()), widths)
}

fn print(header: Option<&[&str]>, rows: &[Vec<String>], widths: &[usize]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if let Some(header) = header {
        table.set_header(header.to_vec());
    }
    // One line per row, whatever a message of a guest holds; and columns as wide as those already printed.
    let cell = |text: &String, width: usize| {
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        format!("{text:width$}")
    };
    for row in rows {
        table.add_row(row.iter().zip(widths).map(|(text, width)| cell(text, *width)).collect::<Vec<_>>());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    table.lines().fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn columns_line_up_with_three_spaces() {
        let header = ["NAME", "READY", "STATUS"];
        let rows = vec![
            vec!["web-7f9c-abcde".to_owned(), "1/1".to_owned(), "Running".to_owned()],
            vec!["x".to_owned(), "0/1".to_owned(), "a\nb".to_owned()],
        ];
        let text = render(&header, &rows) + &render_row(&rows[1], &widths(&header, &rows));
        expect![[r#"
            NAME             READY   STATUS
            web-7f9c-abcde   1/1     Running
            x                0/1     a b
            x                0/1     a b
        "#]]
        .assert_eq(&text);
        expect![[r#"
            NAME   READY   STATUS
        "#]]
        .assert_eq(&render(&header, &[]));
    }
}
