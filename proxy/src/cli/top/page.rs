//! A server's page of metrics, as far as `top` reads it.

use std::collections::BTreeMap;

/// Samples by series' name.
#[derive(Default)]
pub(super) struct Page {
    series: BTreeMap<String, Vec<Series>>,
}

struct Series {
    labels: Vec<(String, String)>,
    value: f64,
}

impl Page {
    /// Lines that cannot be read are passed over: a newer server may have what is not known here.
    pub(super) fn read(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.trim_end_matches('}');
            let labels = labels.split("\",").filter_map(|label| {
                let (name, value) = label.split_once("=\"")?;
                Some((name.to_owned(), value.trim_end_matches('"').to_owned()))
            });
            let series = Series { labels: labels.collect(), value };
            page.series.entry(name.to_owned()).or_default().push(series);
        }
        page
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.series.contains_key(name)
    }

    /// The sum of all series of this name, if there is one.
    pub(super) fn sum(&self, name: &str) -> Option<f64> {
        self.series.get(name).map(|all| all.iter().fold(0.0, |sum, series| sum + series.value))
    }

    /// The sum of those whose label has one of these values.
    pub(super) fn sum_where(&self, name: &str, label: &str, values: &[&str]) -> Option<f64> {
        let all = self.series.get(name)?;
        let is_meant = |series: &&Series| {
            series.labels.iter().any(|(of, value)| of == label && values.contains(&value.as_str()))
        };
        // An empty sum would be less than nothing.
        Some(all.iter().filter(is_meant).fold(0.0, |sum, series| sum + series.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_added_up_by_name_and_by_label() {
        let page = Page::read(
            "# TYPE a counter\na{code=\"OK\",method=\"Put\"} 3\na{code=\"Denied\",method=\"Put\"} 4\nb 0.5\nbroken\n",
        );
        assert_eq!((page.sum("a"), page.sum("b"), page.sum("c")), (Some(7.0), Some(0.5), None));
        assert_eq!(page.sum_where("a", "code", &["Denied", "Other"]), Some(4.0));
        let none = page.sum_where("a", "method", &["Range"]).unwrap();
        assert!(none == 0.0 && none.is_sign_positive(), "{none}");
        assert!(page.has("a") && !page.has("broken"));
    }
}
