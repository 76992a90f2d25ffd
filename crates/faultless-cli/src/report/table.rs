//! The memory report for people: two columns, one section per group of counters.
//!
//! Called by `commands`. Labels are the kernel's keys with blanks for underscores. What did not happen is left out,
//! except where that is the news; the JSON document has everything. Plain text on purpose: a table library would bring
//! borders and colours that end up in log files.

use std::fmt::Write;

use serde_json::Value;

/// The size of a page, for sums in bytes beside numbers of pages.
const PAGE: u64 = 4096;

/// One line of the table.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    depth: usize,
    label: String,
    value: String,
    /// What follows the number.
    note: String,
}

/// The table of a kernel's report, each line ended by a newline; empty if there is nothing in it.
pub fn render(report: &Value) -> String {
    let mut rows = Vec::new();
    collect(report, 1, "", &mut rows);
    let indent = |row: &Row| row.depth * 2 + row.label.chars().count();
    let labels = rows.iter().map(indent).max().unwrap_or(0);
    let values = rows.iter().map(|row| row.value.len()).max().unwrap_or(0);
    let mut text = String::new();
    for row in &rows {
        let label = format!("{:1$}{label}", "", row.depth * 2, label = row.label);
        let line = format!("{label:labels$}  {:>values$}{}", row.value, row.note);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn collect(value: &Value, depth: usize, group: &str, rows: &mut Vec<Row>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let label = key.replace('_', " ");
        if value.is_object() {
            let mut inner = Vec::new();
            collect(value, depth + 1, key, &mut inner);
            if !inner.is_empty() {
                rows.push(Row { depth, label, value: String::new(), note: String::new() });
                rows.append(&mut inner);
            }
            continue;
        }
        let number = value.as_u64();
        if value.is_null() || number == Some(0) && !zero_is_news(group, key) {
            continue;
        }
        let note = number.map_or_else(String::new, |number| note(group, key, number));
        let value = match (number, value.as_str()) {
            (Some(number), _) => grouped(number),
            (None, Some(text)) => text.to_owned(),
            (None, None) => value.to_string(),
        };
        rows.push(Row { depth, label, value, note });
    }
}

/// Locks that no fault took and frames that were not lost are what this project is about.
fn zero_is_news(group: &str, key: &str) -> bool {
    group.starts_with("locks") || key == "leaked"
}

/// What the pages amount to, where a counter counts pages.
fn note(group: &str, key: &str, number: u64) -> String {
    let pages = key.ends_with("_pages") || key.ends_with("rss") || group == "frames";
    match number.checked_mul(PAGE) {
        Some(bytes) if pages && number > 0 => {
            format!("  ({})", crate::units::Size::from_bytes(bytes))
        }
        _ => String::new(),
    }
}

/// A number with commas between its thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1000), "1,000");
        assert_eq!(grouped(12_345_678), "12,345,678");
    }

    #[test]
    fn counters_line_up_and_pages_are_summed() {
        let report = json!({
            "page_faults": {"minor": 1234, "copy_on_write": 5, "errors": 0},
            "copies": {"reuses": 0},
            "locks_in_faults": {"space": 0},
            "forks": 2,
            "peak_rss_pages": 512,
            "frames": {"total": 32768, "leaked": 0},
            "syscalls_unknown": {},
        });
        let expected = [
            "  page faults",
            "    minor           1,234",
            "    copy on write       5",
            "  locks in faults",
            "    space               0",
            "  forks                 2",
            "  peak rss pages      512  (2 MiB)",
            "  frames",
            "    total          32,768  (128 MiB)",
            "    leaked              0",
            "",
        ];
        assert_eq!(render(&report), expected.join("\n"));
    }

    #[test]
    fn other_shapes_do_no_harm() {
        assert_eq!(render(&json!({})), "");
        assert_eq!(render(&json!(7)), "");
        assert_eq!(render(&json!({"a": null, "b": [1], "c": -1})), "  b  [1]\n  c   -1\n");
    }
}
