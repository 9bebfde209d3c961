//! The contract of earlier releases, checked in as their descriptors, is still kept: what they say is understood, and what
//! is said to them they read as it is meant. `8c95c85` is the last release that says nothing of what it can enforce.
#![expect(clippy::unwrap_used, reason = "a test stops where its own set-up fails")]

use std::{collections::BTreeMap, path::Path, sync::Arc};

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, EnumDescriptor, Kind, MessageDescriptor, ReflectMessage, Value};
use selvedge_xds::{
    capability::Capabilities,
    kinds::{self, SELVEDGE},
    proto::{
        discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
        mesh::{Attachment, Destination, Inbound, InboundPort, Origin, Unenforceable},
    },
    resource::Encoded,
    server::Stream,
};

const OLD: &[u8] = include_bytes!("contract/8c95c85.descriptors.binpb");
const PROTOS: [&str; 3] = [
    "envoy/service/discovery/v3/discovery.proto",
    "selvedge/v1alpha1/resources.proto",
    "selvedge/v1alpha1/certificates.proto",
];

fn old() -> DescriptorPool {
    DescriptorPool::decode(OLD).unwrap()
}

fn current() -> DescriptorPool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let descriptors = protox::compile(PROTOS.map(|proto| root.join(proto)), [&root]).unwrap();
    DescriptorPool::from_file_descriptor_set(descriptors).unwrap()
}

/// Everything of `old` that `new` has not, or has otherwise.
fn breaches(old: &DescriptorPool, new: &DescriptorPool) -> Vec<String> {
    let mut breaches = Vec::new();
    for message in old.all_messages() {
        match new.get_message_by_name(message.full_name()) {
            Some(found) => fields(&message, &found, &mut breaches),
            None => breaches.push(format!("message {} is gone", message.full_name())),
        }
    }
    for known in old.all_enums() {
        let numbers = |of: &EnumDescriptor| -> BTreeMap<String, i32> {
            of.values().map(|value| (value.name().to_owned(), value.number())).collect()
        };
        let found = new.get_enum_by_name(known.full_name()).map(|found| numbers(&found)).unwrap_or_default();
        let lost = numbers(&known).into_iter().filter(|(name, number)| found.get(name) != Some(number));
        breaches.extend(lost.map(|(name, number)| format!("{} {name} = {number} is gone", known.full_name())));
    }
    let methods = |pool: &DescriptorPool| -> Vec<String> {
        let all = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
        all.map(|method| {
            let (input, output) = (method.input(), method.output());
            let streams = (method.is_client_streaming(), method.is_server_streaming());
            format!("rpc {} {} {} {streams:?}", method.full_name(), input.full_name(), output.full_name())
        })
        .collect()
    };
    let kept = methods(new);
    breaches.extend(methods(old).into_iter().filter(|method| !kept.contains(method)));
    breaches
}

fn fields(old: &MessageDescriptor, new: &MessageDescriptor, breaches: &mut Vec<String>) {
    let name_of = |kind: Kind| match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(words) => words.full_name().to_owned(),
        plain => format!("{plain:?}"),
    };
    for field in old.fields() {
        let found = new.get_field(field.number());
        let same = found.is_some_and(|found| {
            found.name() == field.name()
                && found.cardinality() == field.cardinality()
                && name_of(found.kind()) == name_of(field.kind())
        });
        if !same {
            breaches.push(format!("{} = {} is gone or another one", field.full_name(), field.number()));
        }
    }
}

#[test]
fn no_field_was_removed_renumbered_or_retyped() {
    let breaches = breaches(&old(), &current());
    assert!(breaches.is_empty(), "earlier releases cannot be spoken to any more:\n{}", breaches.join("\n"));
}

#[test]
fn a_breach_would_be_found() {
    let root = tempfile::tempdir().unwrap();
    let proto = |text: &str| {
        let path = root.path().join("broken.proto");
        std::fs::write(&path, format!("syntax = \"proto3\"; package selvedge.v1alpha1; {text}")).unwrap();
        DescriptorPool::from_file_descriptor_set(protox::compile([path], [root.path()]).unwrap()).unwrap()
    };
    let before = proto("message M { string a = 1; uint32 b = 2; } enum E { X = 0; Y = 1; }");
    for (change, expected) in [
        ("message M { string a = 1; uint64 b = 2; } enum E { X = 0; Y = 1; }", 1),
        ("message M { string a = 3; uint32 b = 2; } enum E { X = 0; Y = 1; }", 1),
        ("message M { repeated string a = 1; } enum E { X = 0; Y = 2; }", 3),
        ("message N { string a = 1; }", 3),
        ("message M { string a = 1; uint32 b = 2; bool c = 3; } enum E { X = 0; Y = 1; Z = 2; }", 0),
    ] {
        assert_eq!(breaches(&before, &proto(change)).len(), expected, "{change}");
    }
}

/// A message of the old contract with something in every field, made from its descriptor.
fn full(message: &MessageDescriptor) -> DynamicMessage {
    let mut filled = DynamicMessage::new(message.clone());
    if message.full_name() == "google.protobuf.Any" {
        filled.set_field_by_name("type_url", Value::String("type.googleapis.com/x".to_owned()));
        return filled;
    }
    for field in message.fields() {
        let one = |kind: Kind| match kind {
            Kind::Message(message) => Value::Message(full(&message)),
            Kind::Enum(words) => Value::EnumNumber(words.values().last().map_or(0, |word| word.number())),
            Kind::String => Value::String(format!("{} of an old release", field.name())),
            Kind::Bytes => Value::Bytes(vec![1, 2, 3].into()),
            Kind::Bool => Value::Bool(true),
            Kind::Uint32 => Value::U32(7),
            Kind::Uint64 => Value::U64(7),
            Kind::Int32 => Value::I32(7),
            Kind::Int64 => Value::I64(7),
            other => panic!("{}: no value for {other:?}", field.full_name()),
        };
        let value = match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                let entry = full(&entry);
                let text = |name: &str| entry.get_field_by_name(name).unwrap().as_str().unwrap().to_owned();
                let key = prost_reflect::MapKey::String(text("key"));
                Value::Map([(key, Value::String(text("value")))].into())
            }
            kind if field.is_list() => Value::List(vec![one(kind)]),
            kind => one(kind),
        };
        filled.set_field(&field, value);
    }
    filled
}

/// Reads what an old sidecar said as the message it is now, and what comes of that as the old message again.
#[test]
fn everything_an_old_sidecar_says_is_understood_and_nothing_gets_lost() {
    let (old, new) = (old(), current());
    let mut seen = 0;
    for message in old.all_messages().filter(|message| !message.is_map_entry()) {
        let said = full(&message);
        let now = new.get_message_by_name(message.full_name()).unwrap();
        let understood = DynamicMessage::decode(now, &*said.encode_to_vec()).unwrap();
        assert_eq!(understood.unknown_fields().count(), 0, "{}", message.full_name());
        let again = DynamicMessage::decode(message.clone(), &*understood.encode_to_vec()).unwrap();
        assert_eq!(again, said, "{}", message.full_name());
        seen += 1;
    }
    assert!(seen > 15, "{seen} messages");
}

/// A request as an old sidecar makes it, from the fields of its release.
fn request(fields: &[(&str, Value)]) -> DeltaDiscoveryRequest {
    let descriptor = old().get_message_by_name("envoy.service.discovery.v3.DeltaDiscoveryRequest").unwrap();
    let mut request = DynamicMessage::new(descriptor);
    for (name, value) in fields {
        request.set_field_by_name(name, value.clone());
    }
    DeltaDiscoveryRequest::decode(&*request.encode_to_vec()).unwrap()
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn message(name: &str, fields: &[(&str, Value)]) -> DynamicMessage {
    let mut message = DynamicMessage::new(old().get_message_by_name(name).unwrap());
    for (name, value) in fields {
        message.set_field_by_name(name, value.clone());
    }
    message
}

#[test]
fn the_server_half_takes_what_an_old_sidecar_does_in_a_life() {
    let resource = |name: &str| {
        let destination = Destination { name: name.to_owned(), ..Destination::default() };
        Arc::new(Encoded::new(kinds::DESTINATION, name, vec!["alias".to_owned()], &destination))
    };
    let all = [resource("shop/web"), resource("shop/api")];
    let find = |_: selvedge_xds::resource::TypeUrl, name: &str| all.iter().find(|found| found.name == name).cloned();
    let mut stream = Stream::new(&SELVEDGE);
    let kind = text(&kinds::DESTINATION.to_string());
    let node = message(
        "envoy.service.discovery.v3.Node",
        &[("id", text("shop/web-1")), ("user_agent_version", text("0.1.0"))],
    );
    let first = request(&[
        ("node", Value::Message(node)),
        ("type_url", kind.clone()),
        ("resource_names_subscribe", Value::List(vec![text("shop/web"), text("shop/api")])),
        (
            "initial_resource_versions",
            Value::Map([(prost_reflect::MapKey::String("shop/web".into()), text("old"))].into()),
        ),
    ]);
    assert_eq!(Capabilities::of(first.node.as_ref().unwrap()), Ok(None), "it says nothing of what it can enforce");
    assert_eq!(stream.request(first), Ok(None));
    let response = stream.responses(&find, &"1".into()).remove(0).to_message();
    assert_eq!(response.resources.len(), 2);

    let refusal = message("selvedge.v1alpha1.Refusal", &[("resources", Value::List(vec![text("shop/api")]))]);
    let detail = message(
        "google.protobuf.Any",
        &[
            ("type_url", text("type.googleapis.com/selvedge.v1alpha1.Refusal")),
            ("value", Value::Bytes(refusal.encode_to_vec().into())),
        ],
    );
    let status = message(
        "envoy.service.discovery.v3.Status",
        &[("message", text("no")), ("details", Value::List(vec![Value::Message(detail)]))],
    );
    let nack = request(&[
        ("type_url", kind),
        ("response_nonce", text(&response.nonce)),
        ("error_detail", Value::Message(status)),
    ]);
    let reply = stream.request(nack).unwrap().expect("it answers the response in flight");
    let names = |of: &[Arc<Encoded>]| of.iter().map(|found| found.name.clone()).collect::<Vec<_>>();
    assert_eq!(
        (names(&reply.taken), names(&reply.refused)),
        (vec!["shop/web".to_owned()], vec!["shop/api".to_owned()])
    );
}

/// Fields that are new since then, and are skipped by whoever does not know them.
const NEW: [&str; 3] = ["Attachment.stands_for", "Destination.unenforceable", "Inbound.unenforceable"];

#[test]
fn an_old_sidecar_reads_what_it_is_told_and_skips_only_what_is_meant_to_be_skipped() {
    let origin = || Some(Origin { kind: "AuthorizationPolicy".into(), generation: 3, ..Origin::default() });
    let attachment = || Attachment { origin: origin(), document: "{}".into(), stands_for: origin() };
    let note = || vec![Unenforceable { origin: origin(), unknown: "rules[0].when".into(), instead: "left out".into() }];
    let inbound = Inbound {
        workload: "shop/web-1".into(),
        ports: vec![InboundPort { port: 80, policies: vec![attachment()], ..InboundPort::default() }],
        policies: vec![attachment()],
        unenforceable: note(),
        ..Inbound::default()
    };
    let destination = Destination { routes: vec![attachment()], unenforceable: note(), ..Destination::default() };
    let old = old();
    let read = |name: &str, bytes: &[u8]| {
        let descriptor = old.get_message_by_name(&format!("selvedge.v1alpha1.{name}")).unwrap();
        DynamicMessage::decode(descriptor, bytes).unwrap()
    };
    let mut skipped = Vec::new();
    for message in [read("Inbound", &inbound.encode_to_vec()), read("Destination", &destination.encode_to_vec())] {
        unknown(&message, &mut skipped);
    }
    skipped.sort();
    skipped.dedup();
    assert_eq!(skipped, NEW);
}

/// `Message.field` of every field, in all depths, that the release did not know, by its name now.
fn unknown(message: &DynamicMessage, found: &mut Vec<String>) {
    let now = current().get_message_by_name(message.descriptor().full_name()).unwrap();
    for field in message.unknown_fields() {
        let name = now.get_field(field.number()).map_or("nothing".to_owned(), |field| field.name().to_owned());
        found.push(format!("{}.{name}", message.descriptor().name()));
    }
    for (_, value) in message.fields() {
        match value {
            Value::Message(inner) => unknown(inner, found),
            Value::List(all) => all.iter().filter_map(Value::as_message).for_each(|inner| unknown(inner, found)),
            _ => {}
        }
    }
}

#[test]
fn responses_have_no_field_that_an_old_sidecar_does_not_know() {
    let descriptor = old().get_message_by_name("envoy.service.discovery.v3.DeltaDiscoveryResponse").unwrap();
    let resource = Encoded::new(kinds::INBOUND, "shop/web-1", Vec::new(), &Inbound::default());
    let response = DeltaDiscoveryResponse {
        system_version_info: "1".into(),
        resources: vec![resource.to_wire(vec!["alias".into()])],
        type_url: kinds::INBOUND.to_string(),
        nonce: "1".into(),
        removed_resources: vec!["shop/web-2".into()],
    };
    let read = DynamicMessage::decode(descriptor, &*response.encode_to_vec()).unwrap();
    let mut skipped = Vec::new();
    unknown(&read, &mut skipped);
    assert!(skipped.is_empty(), "{skipped:?}");
}
