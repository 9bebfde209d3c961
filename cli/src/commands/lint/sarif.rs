//! Findings as SARIF 2.1.0 (OASIS), the form in which code hosts and editors take them.

use std::io::{self, Write};

use selvedge_control_plane::{
    diagnostic::{Diagnostic, Place},
    store::Linted,
};
use selvedge_policies::finding::Code;
use serde_json::{Value, json};

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// Prints one run with all findings.
pub(super) fn print(out: &mut impl Write, linted: &Linted) -> io::Result<()> {
    let rules: Vec<Value> = Code::ALL.iter().map(|code| rule(*code)).collect();
    let log = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "selvedge", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "results": linted.findings.iter().map(result).collect::<Vec<_>>(),
        }],
    });
    serde_json::to_writer_pretty(&mut *out, &log)?;
    writeln!(out)
}

fn rule(code: Code) -> Value {
    json!({
        "id": code.name(),
        "shortDescription": { "text": code.summary() },
        "help": { "text": format!("docs/findings.md, {}", code.name()) },
    })
}

fn result(finding: &Diagnostic) -> Value {
    let hint = if finding.hint.is_empty() { String::new() } else { format!(": {}", finding.hint) };
    let mut result = json!({
        "ruleId": finding.code.name(),
        "level": finding.severity.name(),
        "message": { "text": format!("{}{hint}", finding.message) },
        "locations": [location(&finding.place, &finding.object)],
        "partialFingerprints": { "selvedge/v1": fingerprint(finding) },
    });
    if let Some(related) = &finding.related {
        let mut place = location(&related.place, "");
        place["message"] = json!({ "text": related.message });
        result["relatedLocations"] = json!([place]);
    }
    let written = finding.fix.as_ref().and_then(|fix| finding.place.written(&fix.text));
    if let Some(written) = written {
        let replaced = json!({ "deletedRegion": region(&finding.place), "insertedContent": { "text": written } });
        let change = json!({ "artifactLocation": artifact(&finding.place), "replacements": [replaced] });
        result["fixes"] = json!([{ "description": { "text": finding.hint }, "artifactChanges": [change] }]);
    }
    result
}

fn location(place: &Place, object: &str) -> Value {
    let mut physical = json!({ "artifactLocation": artifact(place) });
    if place.line > 0 {
        physical["region"] = region(place);
    }
    let mut location = json!({ "physicalLocation": physical });
    if !object.is_empty() {
        location["logicalLocations"] = json!([{ "fullyQualifiedName": object }]);
    }
    location
}

fn region(place: &Place) -> Value {
    json!({ "startLine": place.line, "startColumn": place.column, "endColumn": place.end_column() })
}

/// A path as a reference of RFC 3986: all but what needs no escape is escaped.
fn artifact(place: &Place) -> Value {
    let scheme = if place.file.starts_with('/') { "file://" } else { "" };
    let escaped = place.file.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    json!({ "uri": format!("{scheme}{}", escaped.collect::<String>()) })
}

/// The same for a finding that has only moved, in every release: FNV-1a of 64 bits.
fn fingerprint(finding: &Diagnostic) -> String {
    let said = [finding.code.name(), &finding.object, &finding.field, &finding.message].join("\n");
    let hash = said
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}
