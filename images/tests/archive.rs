//! Archives as whoever loads them sees them, made of small programs.
#![expect(clippy::expect_used, reason = "a test may panic")]

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use flate2::read::GzDecoder;
use selvedge_images::{
    image::Image,
    program::{self, PROGRAMS, Program},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A dynamically linked program that says something when it is asked for help.
const SAMPLE: &str = env!("CARGO_BIN_EXE_selvedge-images");

/// A folder with a program of each name.
fn programs() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    for program in &PROGRAMS {
        fs::copy(SAMPLE, folder.path().join(program.name)).expect("a copy");
    }
    folder
}

fn sidecar() -> Program {
    // What the test is built as is larger than what is shipped.
    Program { limit: usize::MAX, ..PROGRAMS[0] }
}

fn image() -> Image {
    let folder = programs();
    let files = program::files(folder.path(), &sidecar()).expect("the files");
    Image::new(&sidecar(), &files, "registry.example/mesh", "1.2.3").expect("an image")
}

fn entries(archive: &[u8]) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut archive = tar::Archive::new(archive);
    let files = archive.entries().expect("entries").map(|entry| {
        let mut entry = entry.expect("an entry");
        assert_eq!(entry.header().mtime().expect("a time"), 0);
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("its content");
        (entry.path().expect("its path").into_owned(), content)
    });
    files.collect()
}

fn sha256(content: &[u8]) -> String {
    let digits = digest(&SHA256, content).as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("sha256:{digits}")
}

/// The blob that a descriptor is about.
fn blob<'a>(entries: &'a BTreeMap<PathBuf, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
    let digest = descriptor["digest"].as_str().expect("a digest");
    let content = &entries[&Path::new("blobs/sha256").join(digest.trim_start_matches("sha256:"))];
    assert_eq!(sha256(content), digest);
    assert_eq!(descriptor["size"], content.len());
    content
}

fn value(content: &[u8]) -> Value {
    serde_json::from_slice(content).expect("JSON")
}

fn layer(entries: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<u8> {
    let index = value(&entries[Path::new("index.json")]);
    let manifest = value(blob(entries, &index["manifests"][0]));
    let mut layer = Vec::new();
    GzDecoder::new(blob(entries, &manifest["layers"][0])).read_to_end(&mut layer).expect("a layer");
    layer
}

#[test]
fn the_same_programs_give_the_same_bytes() {
    let (first, second) = (image(), image());
    assert_eq!(first.digest, second.digest);
    assert!(first.archive == second.archive, "{} and {} bytes", first.archive.len(), second.archive.len());
}

#[test]
fn an_archive_is_an_image_layout_in_which_each_digest_is_right() {
    let image = image();
    let entries = entries(&image.archive);
    assert_eq!(value(&entries[Path::new("oci-layout")]), json!({ "imageLayoutVersion": "1.0.0" }));
    let index = value(&entries[Path::new("index.json")]);
    let described = &index["manifests"][0];
    assert_eq!(described["digest"], image.digest);
    let name = format!("registry.example/mesh/selvedge-proxy@{}", image.digest);
    assert_eq!(described["annotations"]["io.containerd.image.name"], name);
    let manifest = value(blob(&entries, described));
    let config = value(blob(&entries, &manifest["config"]));
    assert_eq!(config["config"]["User"], "1337:1337");
    assert_eq!(config["config"]["Entrypoint"], json!(["/selvedge-proxy"]));
    assert_eq!(config["config"]["Labels"]["org.opencontainers.image.version"], "1.2.3");
    assert_eq!(config["rootfs"]["diff_ids"], json!([sha256(&layer(&entries))]));
    let blobs = entries.keys().filter(|path| path.starts_with("blobs/sha256") && path.components().count() == 3);
    assert_eq!(blobs.count(), 3, "{:?}", entries.keys());
}

#[test]
fn a_layer_has_the_program_its_libraries_and_no_shell() {
    let entries = entries(&layer(&entries(&image().archive)));
    assert_eq!(entries[Path::new("selvedge-proxy")], fs::read(SAMPLE).expect("the program"));
    let names: Vec<String> = entries.keys().map(|path| path.display().to_string()).collect();
    assert!(names.iter().any(|name| name.contains("libc.so")), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("bin/")), "{names:?}");
    assert!(names.iter().any(|name| name == "LICENSE"), "{names:?}");
}

#[test]
fn the_sidecar_has_the_public_authorities_where_it_looks_for_them_and_no_other_program_has() {
    let sidecar = include_str!("../../proxy/src/tls/client.rs");
    assert!(sidecar.contains(&format!("SYSTEM_ROOTS: &str = \"{}\"", program::AUTHORITIES)), "it looks elsewhere");
    let folder = programs();
    let inside = Path::new(program::AUTHORITIES.trim_start_matches('/'));
    for program in &PROGRAMS {
        let files = program::files(folder.path(), program).expect("the files");
        let is_there = files.get(inside).is_some_and(|content| content.starts_with(b"-----BEGIN CERTIFICATE-----"));
        assert_eq!(is_there, program.name == "selvedge-proxy", "{}", program.name);
    }
}

#[test]
fn an_image_that_grew_too_large_is_refused() {
    let folder = programs();
    let files = program::files(folder.path(), &sidecar()).expect("the files");
    let small = Program { limit: 1000, ..sidecar() };
    let refused = Image::new(&small, &files, "a", "1").err().expect("a refusal").to_string();
    assert!(refused.contains("may have 1000"), "{refused}");
}

#[test]
fn nobody_but_those_who_change_a_node_or_its_rules_is_root() {
    for program in &PROGRAMS {
        let is_root = program.user == 0;
        assert_eq!(is_root, matches!(program.name, "selvedge-capture" | "selvedge-cni"), "{}", program.name);
    }
}

/// What a registry and a node are told of an archive is what `images.json` says.
#[test]
fn a_registry_keeps_the_digest_of_an_archive_that_is_pushed() {
    let folder = TempDir::new().expect("a folder");
    let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let settings = format!(
        "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\nhttp: {{ addr: {address} }}\n",
        folder.path().join("registry").display()
    );
    fs::write(folder.path().join("settings"), settings).expect("a file");
    let mut registry = Command::new("docker-registry");
    registry.arg("serve").arg(folder.path().join("settings")).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(registry) = registry.spawn() else { return skip("there is no docker-registry") };
    let _registry = Running(registry);
    if Command::new("skopeo").arg("--version").output().is_err() {
        return skip("there is no skopeo");
    }
    let image = image();
    fs::write(folder.path().join("selvedge-proxy.tar"), &image.archive).expect("an archive");
    let is_up = |_| {
        thread::sleep(Duration::from_millis(20));
        TcpStream::connect(address).is_ok()
    };
    assert!((0..3000).any(is_up), "the registry does not start");
    let skopeo = |arguments: &[&str]| {
        let run = Command::new("skopeo").args(arguments).current_dir(folder.path()).output().expect("skopeo runs");
        assert!(run.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8_lossy(&run.stdout).into_owned()
    };
    let name = format!("docker://{address}/mesh/selvedge-proxy");
    let (tagged, installed) = (format!("{name}:1.2.3"), format!("{name}@{}", image.digest));
    let archive = "oci-archive:selvedge-proxy.tar";
    skopeo(&["--insecure-policy", "copy", "--preserve-digests", "--dest-tls-verify=false", archive, &tagged]);
    let told = skopeo(&["inspect", "--tls-verify=false", &installed]);
    assert_eq!(value(told.as_bytes())["Digest"], image.digest, "{told}");
    skopeo(&["--insecure-policy", "copy", "--src-tls-verify=false", &installed, "oci:back:1.2.3"]);
    let back = folder.path().join("back/blobs/sha256").join(image.digest.trim_start_matches("sha256:"));
    assert_eq!(sha256(&fs::read(back).expect("the manifest came back")), image.digest);
}

/// The name that `selvedge install` gives a pod is one that a loaded node knows.
#[test]
fn a_node_that_loads_an_archive_knows_the_image_by_registry_and_digest() {
    let folder = TempDir::new().expect("a folder");
    if fs::metadata(folder.path()).expect("its owner").uid() != 0 {
        return skip("needs root");
    }
    let place = |name: &str| folder.path().join(name).display().to_string();
    let settings = format!(
        "version = 2\nroot = '{}'\nstate = '{}'\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n\
         [grpc]\naddress = '{}'\n[ttrpc]\naddress = '{}'\n",
        place("root"),
        place("state"),
        place("socket"),
        place("ttrpc")
    );
    fs::write(place("settings"), settings).expect("a file");
    let mut node = Command::new("containerd");
    node.args(["--config", &place("settings")]).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(node) = node.spawn() else { return skip("there is no containerd") };
    let _node = Running(node);
    let ctr = |arguments: &[&str]| {
        let run = Command::new("ctr").args(["--address", &place("socket"), "-n", "k8s.io"]).args(arguments).output();
        run.ok().filter(|run| run.status.success()).map(|run| String::from_utf8_lossy(&run.stdout).into_owned())
    };
    let is_up = |_| {
        thread::sleep(Duration::from_millis(20));
        ctr(&["version"]).is_some()
    };
    assert!((0..1000).any(is_up), "containerd does not start");
    let image = image();
    fs::write(place("selvedge-proxy.tar"), &image.archive).expect("an archive");
    ctr(&["images", "import", "--no-unpack", &place("selvedge-proxy.tar")]).expect("it is imported");
    let known = ctr(&["images", "ls", "-q"]).expect("a list");
    assert_eq!(known.trim(), format!("registry.example/mesh/selvedge-proxy@{}", image.digest));
}

/// A process that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// The program of an image starts in a container of it, as its user, with nothing else of this machine.
#[test]
fn a_container_of_the_image_runs() {
    let folder = TempDir::new().expect("a folder");
    if fs::metadata(folder.path()).expect("its owner").uid() != 0 {
        return skip("needs root");
    }
    let root = folder.path().join("rootfs");
    tar::Archive::new(&layer(&entries(&image().archive))[..]).unpack(&root).expect("a root");
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 1337, "gid": 1337 }, "args": ["/selvedge-proxy", "--help"], "cwd": "/",
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": { "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }] },
    });
    fs::write(folder.path().join("config.json"), config.to_string()).expect("a file");
    // A folder below the root has to be there to mount on.
    fs::create_dir_all(root.join("proc")).expect("a folder");
    let name = format!("selvedge-images-{}", std::process::id());
    let mut runc = Command::new("runc");
    runc.arg("--root").arg(folder.path().join("state")).args(["run", &name]).current_dir(folder.path());
    let run = match with_path(&mut runc).output() {
        Ok(run) => run,
        Err(error) => return skip(&format!("runc does not start: {error}")),
    };
    let (told, refused) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    if refused.contains("cgroup") {
        return skip(&format!("no containers here: {refused}"));
    }
    assert!(run.status.success() && told.contains("OCI archives"), "{told}{refused}");
}

fn with_path(command: &mut Command) -> &mut Command {
    // Debian keeps it outside the path of an ordinary user.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"))
}

fn skip(why: &str) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let _told = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}
