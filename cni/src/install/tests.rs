use std::os::unix::fs::symlink;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// A node whose network plugin has written these files.
struct Test {
    folder: TempDir,
    node: Node,
}

fn node(files: &[(&str, &str)]) -> Test {
    let folder = TempDir::new().unwrap();
    let node = Node { bin_dir: folder.path().join("bin"), conf_dir: folder.path().join("net.d") };
    for made in [&node.bin_dir, &node.conf_dir] {
        fs::create_dir(made).unwrap();
    }
    for (name, text) in files {
        fs::write(node.conf_dir.join(name), text).unwrap();
    }
    Test { folder, node }
}

impl Test {
    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.node.conf_dir.join(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let listed = fs::read_dir(&self.node.conf_dir).unwrap();
        let mut names: Vec<String> = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The types of the plugins that a runtime would call.
    fn chain(&self) -> Vec<String> {
        let first = chain::first(&self.node.conf_dir).unwrap().unwrap();
        let list: Value = serde_json::from_str(&fs::read_to_string(first.path()).unwrap()).unwrap();
        let plugins = list["plugins"].as_array().cloned().unwrap_or_else(|| vec![list.clone()]);
        plugins.iter().map(|plugin| plugin["type"].as_str().unwrap().to_owned()).collect()
    }

    fn has_program(&self) -> bool {
        self.node.bin_dir.join(PROGRAM).exists()
    }
}

const LIST: &str = r#"{ "name": "cbr0", "cniVersion": "0.3.1",
  "plugins": [ {"type":"flannel", "delegate": {"hairpinMode": true, "mtu":1450.0}}, {"type":"portmap","capabilities":{"portMappings":true}} ] }"#;

#[test]
fn the_first_list_that_can_be_used_gets_the_plugin_at_its_end() {
    let test = node(&[
        ("05-broken.conflist", "{"),
        ("10-flannel.conflist", LIST),
        ("20-other.conflist", LIST),
        ("README", ""),
    ]);
    let again = [test.node.install().unwrap(), test.node.install().unwrap()];
    assert_eq!(again[0], again[1]);
    assert!(again[0].contains("10-flannel.conflist"), "{}", again[0]);
    assert_eq!(test.chain(), ["flannel", "portmap", "selvedge-cni"]);
    assert!(
        test.read("10-flannel.conflist")
            .contains(r#"{"type":"flannel", "delegate": {"hairpinMode": true, "mtu":1450.0}}"#)
    );
    assert_eq!(test.read("20-other.conflist"), LIST);
    assert_eq!(fs::metadata(test.node.bin_dir.join(PROGRAM)).unwrap().permissions().mode() & 0o777, 0o755);
    test.node.check().unwrap();

    test.node.remove().unwrap();
    let left: Value = serde_json::from_str(&test.read("10-flannel.conflist")).unwrap();
    assert_eq!(left, serde_json::from_str::<Value>(LIST).unwrap());
    assert!(!test.has_program() && test.node.check().is_err());
    test.node.remove().unwrap();
    assert_eq!(test.names(), ["05-broken.conflist", "10-flannel.conflist", "20-other.conflist", "README"]);
}

#[test]
fn a_file_of_one_plugin_becomes_a_list_and_gets_its_place_back() {
    let single = r#"{"cniVersion":"0.3.1","name":"net","type":"bridge"}"#;
    for renewed in [false, true] {
        let test = node(&[("10-x.conf", single), ("10-x.conflist", LIST)]);
        test.node.install().unwrap();
        assert_eq!(test.chain(), ["bridge", "selvedge-cni"]);
        assert_eq!(test.read("10-x.conflist"), LIST, "another file is not touched");
        if renewed {
            fs::write(test.node.conf_dir.join("10-x.conf"), single.replace("net", "new")).unwrap();
            assert_eq!(test.chain(), ["bridge"]);
            test.node.install().unwrap();
            assert_eq!(test.chain(), ["bridge", "selvedge-cni"]);
            let list: Value = serde_json::from_str(&test.read("10-x.conf.conflist")).unwrap();
            assert_eq!((&list["name"], &list["cniVersion"]), (&json!("new"), &json!("0.3.1")));
        }
        test.node.remove().unwrap();
        assert_eq!(test.names(), ["10-x.conf", "10-x.conflist"]);
        assert_eq!(test.chain(), ["bridge"]);
    }
}

#[test]
fn an_earlier_version_is_replaced_where_it_stands() {
    let earlier = LIST.replace(r#"{"type":"portmap""#, r#"{"type":"selvedge-cni","old":1},{"type":"portmap""#);
    let test = node(&[("10-x.conflist", &earlier)]);
    fs::write(test.node.bin_dir.join(PROGRAM), "earlier").unwrap();
    assert!(test.node.check().is_err());
    test.node.install().unwrap();
    assert_eq!(test.chain(), ["flannel", "selvedge-cni", "portmap"]);
    assert!(!test.read("10-x.conflist").contains("old"));
    test.node.check().unwrap();
}

#[test]
fn without_a_network_the_program_waits_for_one() {
    let test = node(&[]);
    let told = test.node.install().unwrap_err().to_string();
    assert!(told.contains("no network configuration that can be used yet"), "{told}");
    assert!(test.has_program(), "it is there before anything names it");
}

/// A reader at any moment finds a chain that is whole, and a program for it.
#[test]
fn what_a_runtime_reads_is_whole_at_every_moment() {
    let test = node(&[("10-x.conflist", LIST)]);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20 {
                test.node.install().unwrap();
                chain::remove(&test.node.conf_dir).unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            let chain = test.chain();
            assert!(chain.len() >= 2, "{chain:?}");
            assert!(chain.len() == 2 || test.has_program(), "the chain names a program that is not there");
        }
    });
}

#[test]
fn what_cannot_be_written_leaves_everything_as_it_was() {
    let test = node(&[("10-x.conflist", LIST)]);
    let nowhere = Node { bin_dir: test.folder.path().join("missing"), ..test.node.clone() };
    let told = nowhere.install().unwrap_err().to_string();
    assert!(told.contains("missing cannot be listed"), "{told}");
    assert_eq!((test.read("10-x.conflist").as_str(), test.names().len()), (LIST, 1), "no chain without a program");
    let left = test.node.conf_dir.join(format!(".10-x.conflist.{DRAFT}-0"));
    fs::write(&left, "half").unwrap();
    symlink("/nowhere", test.node.conf_dir.join("11-gone.conflist")).unwrap();
    test.node.install().unwrap();
    assert_eq!(test.names(), ["10-x.conflist", "11-gone.conflist"]);
}
