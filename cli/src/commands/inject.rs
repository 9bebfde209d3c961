//! `selvedge inject` and `selvedge uninject`: sidecars put into manifests and taken out of them, offline.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use selvedge_inject::{
    injection,
    pod::Namespace,
    removal,
    setting::{KIND, NAME, NAMESPACE, Settings},
    switch::{ENABLED, LABEL, WhyNot},
    template::{self, Template},
    warning,
};
use serde_json::Value;

use crate::manifest::{self, Document, patch};

/// Put sidecars into the pods of manifests, and print them.
///
/// Takes YAML of Pods, Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs, CronJobs and Lists. What has no pod, and
/// pods that get no sidecar, are printed as they are; standard error says why not, and what is not meant as it is written.
#[derive(Debug, clap::Args)]
pub struct InjectArgs {
    /// The file with manifests; - reads standard input.
    #[arg(short = 'f', long, value_name = "FILE", default_value = "-")]
    filename: PathBuf,
    /// The settings of the mesh: what `kubectl get injectionconfig selvedge-inject -n selvedge-system -o yaml` prints.
    #[arg(long, value_name = "FILE")]
    settings: PathBuf,
}

/// Take sidecars out of the pods of manifests, and print them.
#[derive(Debug, clap::Args)]
pub struct UninjectArgs {
    /// The file with manifests; - reads standard input.
    #[arg(short = 'f', long, value_name = "FILE", default_value = "-")]
    filename: PathBuf,
}

/// Prints the manifests with sidecars.
///
/// # Errors
/// A file cannot be read or is no YAML, or the settings lack what a sidecar needs.
pub fn run(args: &InjectArgs) -> anyhow::Result<()> {
    let settings = settings(&args.settings)?;
    let file = name(&args.filename);
    edit(&args.filename, |document, object, template| {
        let pod = object.pointer(&template.pointer).unwrap_or(&Value::Null);
        let line = document.line_of(&template.pointer);
        let namespace = namespace(template);
        for warning in warning::warnings(pod, &namespace, &settings) {
            let at = document.line_of(&format!("{}{}", template.pointer, pointer_of(&warning)));
            eprintln!("{file}:{at}: warning: {}: {}", template.of, warning.text);
        }
        match injection::inject(pod, &namespace, &settings) {
            Ok(patch) if patch.is_empty() => eprintln!("{file}:{line}: {} has its sidecar already", template.of),
            Ok(patch) => return Ok(patch),
            Err(why @ WhyNot::NotReady(_)) => bail!("{}: {why}", args.settings.display()),
            Err(why) => eprintln!("{file}:{line}: {} gets no sidecar: {why}", template.of),
        }
        Ok(Vec::new())
    })
}

/// Prints the manifests without sidecars.
///
/// # Errors
/// A file cannot be read or is no YAML.
pub fn run_back(args: &UninjectArgs) -> anyhow::Result<()> {
    edit(&args.filename, |_, object, template| {
        Ok(removal::remove(object.pointer(&template.pointer).unwrap_or(&Value::Null)))
    })
}

/// Prints the documents of a file, with the patch that `decide` gives for each pod carried out.
fn edit(
    path: &Path,
    mut decide: impl FnMut(&Document<'_>, &Value, &Template) -> anyhow::Result<Vec<Value>>,
) -> anyhow::Result<()> {
    let text = read(path)?;
    let mut documents = manifest::read(&text).with_context(|| name(path))?;
    for document in &mut documents {
        let object = document.tree.to_json();
        for template in template::templates(&object) {
            let operations = decide(document, &object, &template)?;
            document.is_changed |= !operations.is_empty();
            for operation in &operations {
                patch::apply(&mut document.tree, &template.pointer, operation)?;
            }
        }
    }
    // Nothing is printed of what could not be done as a whole: it would be applied.
    let written: String = documents.iter().map(Document::written).collect();
    io::stdout().lock().write_all(written.as_bytes()).context("writing the manifests")
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    if path == Path::new("-") {
        io::stdin().read_to_string(&mut text).context("reading standard input")?;
        return Ok(text);
    }
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn name(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() }
}

/// The settings from a file, whatever else is in it.
fn settings(path: &Path) -> anyhow::Result<Settings> {
    let text = read(path)?;
    let documents = manifest::read(&text).with_context(|| name(path))?;
    let objects = documents.iter().map(|document| document.tree.to_json());
    let is_it = |object: &Value| object["kind"] == KIND && object["metadata"]["name"] == NAME;
    let found = objects.into_iter().find(is_it).with_context(|| {
        format!(
            "there is no {KIND} {NAME} in {}: write what `kubectl get injectionconfig {NAME} -n {NAMESPACE} -o yaml` \
             prints",
            name(path)
        )
    })?;
    let settings = Settings::of(&found);
    match settings.mistake() {
        None => Ok(settings),
        Some(mistake) => bail!("{}: {mistake}", name(path)),
    }
}

/// The namespace of a template. Who runs this command asks for sidecars, as a label would; the labels of pods still count.
fn namespace(template: &Template) -> Namespace {
    let labels = [(LABEL.to_owned(), Value::from(ENABLED))].into_iter().collect();
    Namespace { name: template.namespace.clone(), labels }
}

/// Where in a pod a warning is about.
fn pointer_of(warning: &warning::Warning) -> String {
    let parent = match warning.key.as_str() {
        "" => return String::new(),
        LABEL => "labels",
        _ => "annotations",
    };
    format!("/metadata/{parent}/{}", warning.key.replace('~', "~0").replace('/', "~1"))
}
