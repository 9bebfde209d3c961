//! A real Prometheus that scrapes what a test has started, where one is installed.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{client, ports::Reserved, process::Process, program, wait};

/// What is scraped under one name.
pub struct Job {
    /// The value of the label `job` on all that it tells.
    pub name: &'static str,
    /// Addresses of the servers that are asked; each is one `instance`.
    pub targets: Vec<SocketAddr>,
    /// The path of its metrics.
    pub path: &'static str,
}

/// A Prometheus of one test, which scrapes once a second.
pub struct Prometheus {
    address: SocketAddr,
    _process: Process,
    /// Nobody else gets it meanwhile.
    _port: Reserved,
}

impl Prometheus {
    /// The program; `None` after saying that the test is skipped without it.
    pub fn installed() -> Option<PathBuf> {
        program("prometheus")
    }

    /// Starts the program in a folder of its own inside `folder`.
    pub fn start(program: &Path, folder: &Path, jobs: &[Job]) -> Self {
        let job = |Job { name, targets, path }: &Job| {
            let targets: Vec<String> = targets.iter().map(|target| format!("'{target}'")).collect();
            let targets = targets.join(", ");
            format!("- {{job_name: {name}, metrics_path: {path}, static_configs: [{{targets: [{targets}]}}]}}\n")
        };
        let jobs: String = jobs.iter().map(job).collect();
        let config = folder.join("prometheus.yaml");
        fs::write(&config, format!("global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n{jobs}"))
            .expect("the configuration of Prometheus is written");
        let port = Reserved::new();
        let address = port.address();
        let mut command = Command::new(program);
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()));
        command.arg(format!("--web.listen-address={address}"));
        Self { address, _process: Process::start("prometheus", &mut command, folder), _port: port }
    }

    /// What this query comes to now, each series with its labels and its value; `None` while it cannot be asked. Panics when
    /// it is no query.
    pub async fn ask(&self, query: &str) -> Option<Vec<(Value, String)>> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = client::get(self.address, &format!("/api/v1/query?query={escaped}")).await.ok()?;
        assert_ne!(answer.status, 400, "{query}: {}", answer.text());
        let answer: Value = serde_json::from_slice(&answer.body).ok()?;
        let result = answer["data"]["result"].as_array()?;
        let series =
            |series: &Value| (series["metric"].clone(), series["value"][1].as_str().unwrap_or_default().into());
        Some(result.iter().map(series).collect())
    }

    /// Waits until the first value of this query is `wanted`.
    pub async fn until(&self, query: &str, wanted: &str) {
        let what = format!("{query} is {wanted}");
        wait::until_true(&what, || async {
            self.ask(query).await.is_some_and(|series| series.first().is_some_and(|(_, value)| value == wanted))
        })
        .await;
    }
}
