//! The page as HTML. Everything that came from elsewhere is escaped.

use std::fmt::Write;

use super::Version;
use crate::{content::Article, reports::Report};

/// The tenant's page. A report that could not be had is left out: the articles matter more.
pub(super) fn render(
    version: Version,
    tenant: &str,
    user: &str,
    articles: &[Article],
    report: Option<&Report>,
) -> String {
    let (articles, usage) = (article_list(articles), usage_table(report));
    let (first, second) = match version {
        Version::V1 => (articles, usage),
        Version::V2 => (usage, articles),
    };
    let (tenant, user) = (escape(tenant), escape(user));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{tenant}</title></head>\n\
         <body data-version=\"{}\"><h1>{tenant}</h1><p>Signed in as {user}</p>\n{first}{second}</body></html>\n",
        version.name()
    )
}

fn article_list(articles: &[Article]) -> String {
    let items: String = articles.iter().fold(String::new(), |mut html, article| {
        let _ = write!(html, "<li id=\"article-{}\">{}</li>", article.id, escape(&article.title));
        html
    });
    format!("<h2>Articles</h2><ul>{items}</ul>\n")
}

fn usage_table(report: Option<&Report>) -> String {
    let Some(report) = report else { return "<h2>Usage</h2><p>Not available right now.</p>\n".into() };
    let rows: String = report.usage.iter().fold(String::new(), |mut html, (kind, count)| {
        let _ = write!(html, "<tr><th>{}</th><td>{count}</td></tr>", escape(kind));
        html
    });
    format!("<h2>Usage</h2><table>{rows}</table><p>Report goes to {}</p>\n", escape(&report.recipient))
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_cannot_inject_markup() {
        let articles = [Article { id: 1, title: "<script>alert('x')</script>".into(), body: String::new() }];
        let html = render(Version::V1, "a&b", "ada", &articles, None);
        assert!(html.contains("&lt;script&gt;") && html.contains("a&amp;b"), "{html}");
        assert!(!html.contains("<script>"));
    }

    #[test]
    fn versions_differ_in_what_comes_first() {
        let usage_first = |version| {
            let html = render(version, "t", "u", &[], None);
            html.find("<h2>Usage") < html.find("<h2>Articles")
        };
        assert_eq!([usage_first(Version::V1), usage_first(Version::V2)], [false, true]);
    }
}
