//! The plugin's side of the CNI specification (1.1 and earlier, <https://www.cni.dev/docs/spec/>), chained behind another.
//!
//! Guarantees: whether a pod asks to be captured is decided from what the runtime hands over and before anything else is
//! read, so for a pod that does not ask there is nothing that could fail: what the plugin before said is passed on, byte for
//! byte. A pod that asks and cannot be captured is refused.

use std::{
    collections::HashMap,
    env, fs,
    io::{self, Read, Write},
    os::fd::AsFd,
    path::Path,
    process::ExitCode,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use selvedge_capture::{Capture, CaptureError};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

/// The annotation by which a pod asks: the options of `selvedge-capture apply` on one line.
const ASKS: &str = "selvedge.dev/capture";
/// Versions whose results have the plugin before pass on as they are.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// What is answered in when the runtime names no version.
const VERSION: &str = "1.1.0";

/// Error codes of the specification, and one of our own.
const WRONG_ENVIRONMENT: u32 = 4;
const NOT_DECODED: u32 = 6;
const WRONG_CONFIGURATION: u32 = 7;
const NOT_CAPTURED: u32 = 100;

/// What the runtime writes to standard input. Nothing else in it is looked at.
#[derive(Deserialize)]
struct Handed<'a> {
    #[serde(borrow, rename = "cniVersion")]
    version: Option<&'a RawValue>,
    #[serde(borrow, rename = "prevResult")]
    previous: Option<&'a RawValue>,
    #[serde(borrow, rename = "runtimeConfig")]
    runtime: Option<&'a RawValue>,
}

impl Handed<'_> {
    fn version(&self) -> String {
        self.version.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_else(|| VERSION.into())
    }

    /// What the pod asks for; `None` when it does not, or the runtime tells nothing of its annotations.
    fn asked(&self) -> Option<String> {
        let runtime: HashMap<String, &RawValue> = serde_json::from_str(self.runtime?.get()).ok()?;
        let annotations = runtime.get("io.kubernetes.cri.pod-annotations")?;
        let annotations: HashMap<String, Value> = serde_json::from_str(annotations.get()).ok()?;
        // Of another type than text it would ask all the same.
        annotations.get(ASKS).map(|asked| asked.as_str().map_or_else(|| asked.to_string(), str::to_owned))
    }
}

/// Why a call failed, in the words of the specification.
struct Refusal {
    code: u32,
    what: String,
    details: String,
}

impl From<CaptureError> for Refusal {
    fn from(error: CaptureError) -> Self {
        let code = if matches!(error, CaptureError::Options(_)) { WRONG_CONFIGURATION } else { NOT_CAPTURED };
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Self { code, what: "the pod cannot be captured by Selvedge".into(), details: format!("{error}{cause}") }
    }
}

/// Does what `CNI_COMMAND` says.
pub(crate) fn main(command: &str) -> ExitCode {
    let mut handed = Vec::new();
    let read = io::stdin().read_to_end(&mut handed);
    let (answer, code) = match read {
        Ok(_) => answer(command, &handed),
        Err(error) => told(
            VERSION,
            &Refusal { code: 5, what: "standard input cannot be read".into(), details: error.to_string() },
        ),
    };
    // A runtime that has gone wants no answer.
    let _ = io::stdout().write_all(answer.as_bytes());
    code
}

/// What to print for `command`, and how to end.
fn answer(command: &str, handed: &[u8]) -> (String, ExitCode) {
    let parsed: Handed<'_> = match serde_json::from_slice(handed) {
        Ok(parsed) => parsed,
        // None of these needs to know anything.
        Err(_) if ["DEL", "GC", "STATUS"].contains(&command) => return (String::new(), ExitCode::SUCCESS),
        Err(_) if command == "VERSION" => return (versions(VERSION), ExitCode::SUCCESS),
        Err(error) => {
            let what = "the configuration on standard input is not JSON".into();
            return told(VERSION, &Refusal { code: NOT_DECODED, what, details: error.to_string() });
        }
    };
    let version = parsed.version();
    let outcome = match command {
        "ADD" => match parsed.asked() {
            Some(asked) => passed_on(&parsed).and_then(|said| capture(&asked).map(|()| said)),
            None => {
                Ok(parsed.previous.map_or_else(|| json!({ "cniVersion": version }).to_string(), |raw| raw.get().into()))
            }
        },
        "CHECK" => parsed.asked().map_or(Ok(()), |asked| check(&asked)).map(|()| String::new()),
        "VERSION" => Ok(versions(&version)),
        // The namespace goes, and the rules with it; and a node that could not capture is still one for all other pods.
        "DEL" | "GC" | "STATUS" => Ok(String::new()),
        _ => Err(Refusal {
            code: WRONG_ENVIRONMENT,
            what: format!("CNI_COMMAND is '{command}'"),
            details: String::new(),
        }),
    };
    outcome.map_or_else(|refusal| told(&version, &refusal), |answer| (answer, ExitCode::SUCCESS))
}

/// What the plugin before said. Capture alone makes no network.
fn passed_on(handed: &Handed<'_>) -> Result<String, Refusal> {
    let missing = || Refusal {
        code: WRONG_CONFIGURATION,
        what: "selvedge-cni is chained behind no other plugin".into(),
        details: "there is no prevResult: it must be the last of a list of plugins".into(),
    };
    handed.previous.map(|raw| raw.get().to_owned()).ok_or_else(missing)
}

fn versions(version: &str) -> String {
    json!({ "cniVersion": version, "supportedVersions": VERSIONS }).to_string()
}

fn told(version: &str, refusal: &Refusal) -> (String, ExitCode) {
    let Refusal { code, what, details } = refusal;
    let pod = env::var("CNI_ARGS").ok().and_then(|arguments| pod(&arguments)).map(|pod| format!(" ({pod})"));
    let what = format!("{what}{}", pod.unwrap_or_default());
    let answer = json!({ "cniVersion": version, "code": code, "msg": what, "details": details });
    (answer.to_string(), ExitCode::FAILURE)
}

/// `namespace/name` of the pod, as runtimes of Kubernetes put it into `CNI_ARGS`.
fn pod(arguments: &str) -> Option<String> {
    let find = |key: &str| arguments.split(';').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    Some(format!("{}/{}", find("K8S_POD_NAMESPACE")?, find("K8S_POD_NAME")?))
}

/// Puts the rules in force in the pod, or refuses the pod.
fn capture(asked: &str) -> Result<(), Refusal> {
    let capture: Capture = asked.parse()?;
    enter()?;
    selvedge_capture::apply(&capture).map(drop).map_err(Refusal::from)
}

/// Finds out whether the rules of a pod are still in force.
fn check(asked: &str) -> Result<(), Refusal> {
    let capture: Capture = asked.parse()?;
    enter()?;
    selvedge_capture::verify(&capture).map_err(Refusal::from)
}

/// Moves this process into the network namespace of the pod.
fn enter() -> Result<(), Refusal> {
    let refusal = |what: String, details: String| Refusal { code: NOT_CAPTURED, what, details };
    let path = env::var("CNI_NETNS").map_err(|_| Refusal {
        code: WRONG_ENVIRONMENT,
        what: "CNI_NETNS is missing".into(),
        details: "it names the network namespace of the pod".into(),
    })?;
    let cannot = || format!("the network namespace {path} cannot be entered");
    let namespace = fs::File::open(Path::new(&path)).map_err(|error| refusal(cannot(), error.to_string()))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|error| refusal(cannot(), error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(handed: &str) -> Option<String> {
        serde_json::from_str::<Handed<'_>>(handed).unwrap().asked()
    }

    fn pod(annotations: &str) -> String {
        format!(
            r#"{{"cniVersion":"1.0.0","prevResult":{{}},"runtimeConfig":{{"io.kubernetes.cri.pod-annotations":{annotations}}}}}"#
        )
    }

    #[test]
    fn only_the_annotation_asks() {
        assert_eq!(asked(&pod(r#"{"selvedge.dev/capture":"--exempt-uid=7"}"#)).unwrap(), "--exempt-uid=7");
        assert_eq!(asked(&pod(r#"{"selvedge.dev\/capture":""}"#)).unwrap(), "");
        assert_eq!(asked(&pod(r#"{"selvedge.dev/capture":null,"a":"b"}"#)).unwrap(), "null");
        for other in [
            "{}",
            r#"{"runtimeConfig":null}"#,
            r#"{"runtimeConfig":[]}"#,
            r#"{"runtimeConfig":{"portMappings":[]}}"#,
            &pod("null"),
            &pod("7"),
            &pod(r#"{"config.selvedge.dev/capture":"cni","selvedge.dev/status":"injected"}"#),
        ] {
            assert_eq!(asked(other), None, "{other}");
        }
    }

    #[test]
    fn what_the_plugin_before_said_is_passed_on_byte_for_byte() {
        let previous =
            r#"{ "cniVersion": "0.3.1", "odd" : 1.50, "ips":[ {"address":"10.0.0.2/24"} ], "a":{"z":1,"b":2} }"#;
        let handed = format!(r#"{{"cniVersion":"0.3.1","name":"x","broken":{{"deep":[]}},"prevResult":{previous}}}"#);
        assert_eq!(answer("ADD", handed.as_bytes()), (previous.to_owned(), ExitCode::SUCCESS));
        for (command, expected) in [("DEL", ""), ("CHECK", ""), ("GC", ""), ("STATUS", "")] {
            assert_eq!(answer(command, handed.as_bytes()), (expected.to_owned(), ExitCode::SUCCESS), "{command}");
        }
        let (said, code) = answer("VERSION", br#"{"cniVersion":"0.4.0"}"#);
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!((said["cniVersion"].as_str(), code), (Some("0.4.0"), ExitCode::SUCCESS));
        assert_eq!(said["supportedVersions"].as_array().unwrap().len(), 5);
    }

    #[test]
    fn what_cannot_be_done_is_told_in_the_words_of_the_specification() {
        let asking = |options: &str| pod(&format!(r#"{{"selvedge.dev/capture":"{options}"}}"#));
        for (command, handed, code, word) in [
            ("ADD", "no json".to_owned(), 6, "not JSON"),
            ("MORE", "{}".to_owned(), 4, "CNI_COMMAND is 'MORE'"),
            ("ADD", asking("").replace("prevResult", "other"), 7, "behind no other plugin"),
            ("ADD", asking("--exempt-uid=root"), 7, "cannot be captured"),
            ("CHECK", pod(r#"{"selvedge.dev/capture":{}}"#), 7, "cannot be captured"),
        ] {
            let (said, end) = answer(command, handed.as_bytes());
            let said: Value = serde_json::from_str(&said).unwrap();
            assert_eq!((said["code"].as_u64(), end), (Some(code), ExitCode::FAILURE), "{said}");
            assert!(said["msg"].as_str().unwrap().contains(word), "{said}");
        }
        assert_eq!(super::pod("K8S_POD_NAME=web-1;IgnoreUnknown=1;K8S_POD_NAMESPACE=shop"), Some("shop/web-1".into()));
        assert_eq!(super::pod("K8S_POD_NAME=web-1"), None);
    }
}
