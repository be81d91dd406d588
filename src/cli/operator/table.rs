//! Tables for people: columns as wide as what stands in them, without lines.

use std::io::{self, Write};

/// Writes rows under a head; the last column is not padded.
pub fn write<const N: usize>(
    out: &mut impl Write,
    head: [&str; N],
    rows: &[[String; N]],
) -> io::Result<()> {
    let mut widths = head.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut line = |cells: [&str; N]| {
        let mut text = String::new();
        for (at, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let padding = if at + 1 == N { 0 } else { width + 2 };
            text += &format!("{cell:<padding$}");
        }
        writeln!(out, "{}", text.trim_end())
    };
    line(head)?;
    for row in rows {
        line(std::array::from_fn(|at| row[at].as_str()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let mut out = Vec::new();
        let rows = [
            ["post_1".to_owned(), "é".into(), "x".into()],
            ["a".into(), "long one".into(), String::new()],
        ];
        super::write(&mut out, ["CHANNEL", "N", "LAST"], &rows).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "CHANNEL  N         LAST\npost_1   é         x\na        long one\n"
        );
    }
}
