//! Where a value goes and where it comes from: what a table of fields is made of. Each can be evaluated for a pod, and
//! be written in CEL.

use serde_json::{Value, json};

use crate::{
    annotation::{Annotation, Fallback},
    cel::literal,
    expression::{Expression, quoted},
    pod::Request,
    setting::Setting,
};

/// A value of JSON, of which parts come from elsewhere.
#[derive(Debug)]
pub enum Field {
    /// A text.
    Text(Source),
    /// A text that begins with a fixed one.
    After(&'static str, Source),
    /// A whole number.
    Number(Source),
    /// True or false.
    Flag(bool),
    /// Fields with their names.
    Object(&'static [(&'static str, Field)]),
    /// Elements in their order.
    List(&'static [Field]),
    /// An environment variable and the field of the pod that it has the value of (downward API).
    Downward(&'static str, &'static str),
    /// An entry of an object or a list that is there only where a source has something to say.
    Where(Source, &'static Field),
}

/// Where a text comes from.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// Always the same.
    Constant(&'static str),
    /// What the administrator has set.
    Setting(&'static Setting),
    /// What the user has written, or its fallback.
    Annotation(&'static Annotation),
    /// What is found out of the pod.
    Expression(&'static Expression),
    /// The sidecar's file.
    Lines(&'static [Line]),
}

/// One key of the sidecar's file; left out where its source has nothing to say.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// What stands before the value.
    pub before: &'static str,
    /// What is written for the key, empty to leave the line out.
    pub value: Source,
    /// How the value is written.
    pub style: Style,
    /// What stands behind the value.
    pub after: &'static str,
}

/// How a value is written in the sidecar's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As it is: it is YAML already, or cannot be anything else.
    Plain,
    /// Between quotes, with nothing in it that Kubernetes would replace.
    Quoted,
}

impl Field {
    /// The value for a pod; `None` for an entry that is left out.
    pub fn value(&self, request: &Request<'_>) -> Option<Value> {
        Some(match self {
            Self::Text(source) => source.text(request).into(),
            Self::After(before, source) => format!("{before}{}", source.text(request)).into(),
            Self::Number(source) => source.text(request).parse::<i64>().unwrap_or_default().into(),
            Self::Flag(flag) => Value::Bool(*flag),
            Self::Object(fields) => {
                let found = fields.iter().map(|(name, field)| Some(((*name).to_owned(), field.value(request)?)));
                Value::Object(found.flatten().collect())
            }
            Self::List(fields) => fields.iter().filter_map(|field| field.value(request)).collect(),
            Self::Downward(name, path) => json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } }),
            Self::Where(source, field) => {
                return if source.text(request).is_empty() { None } else { field.value(request) };
            }
        })
    }

    /// The value in CEL. Every part is `dyn`, for a literal there is of one type.
    pub fn cel(&self) -> String {
        match self {
            Self::Text(source) => source.cel(),
            Self::After(before, source) => format!("{} + {}", literal(before), source.cel()),
            Self::Number(source) => format!("int({})", source.cel()),
            Self::Flag(flag) => flag.to_string(),
            Self::Object(fields) => {
                let entry =
                    |(name, field): &(&str, Self)| format!("{}{}: {}", field.mark(), literal(name), field.entry());
                format!("{{{}}}", fields.iter().map(entry).collect::<Vec<_>>().join(", "))
            }
            Self::List(fields) => {
                let entry = |field: &Self| format!("{}{}", field.mark(), field.entry());
                format!("[{}]", fields.iter().map(entry).collect::<Vec<_>>().join(", "))
            }
            Self::Downward(name, path) => format!(
                "{{'name': dyn({}), 'valueFrom': dyn({{'fieldRef': {{'fieldPath': {}}}}})}}",
                literal(name),
                literal(path)
            ),
            Self::Where(_, field) => field.cel(),
        }
    }

    /// What CEL has before an entry that may be left out.
    fn mark(&self) -> &'static str {
        if matches!(self, Self::Where(..)) { "?" } else { "" }
    }

    fn entry(&self) -> String {
        match self {
            Self::Where(source, field) => {
                format!("({} == '' ? optional.none() : optional.of(dyn({})))", source.cel(), field.cel())
            }
            _ => format!("dyn({})", self.cel()),
        }
    }
}

impl Source {
    /// The text for a pod; empty where there is nothing to say.
    pub fn text(&self, request: &Request<'_>) -> String {
        match self {
            Self::Constant(text) => (*text).to_owned(),
            Self::Setting(setting) => request.settings.get(setting).unwrap_or_default().to_owned(),
            Self::Annotation(annotation) => annotation.of(request),
            Self::Expression(expression) => (expression.text)(request),
            Self::Lines(lines) => lines.iter().filter_map(|line| line.text(request)).collect::<Vec<_>>().join("\n"),
        }
    }

    /// The text in CEL.
    pub fn cel(&self) -> String {
        match self {
            Self::Constant(text) => literal(text),
            Self::Setting(setting) => format!("variables.{}", variable_of_setting(setting)),
            Self::Annotation(annotation) => format!("variables.{}", variable_of_annotation(annotation)),
            Self::Expression(expression) => format!("variables.{}", expression.name),
            Self::Lines(lines) => {
                let lists: Vec<String> = lines.iter().map(Line::cel).collect();
                format!("({}).join('\\n')", lists.join("\n+ "))
            }
        }
    }
}

impl Line {
    fn text(&self, request: &Request<'_>) -> Option<String> {
        let value = Some(self.value.text(request)).filter(|value| !value.is_empty())?;
        let value = if self.style == Style::Quoted { quoted(&value) } else { value };
        Some(format!("{}{value}{}", self.before, self.after))
    }

    /// A list with the line, or an empty one.
    fn cel(&self) -> String {
        let value = self.value.cel();
        let written = match self.style {
            Style::Plain => value.clone(),
            Style::Quoted => format!("strings.quote({value}).replace('$', '$$')"),
        };
        let behind = if self.after.is_empty() { String::new() } else { format!(" + {}", literal(self.after)) };
        let line = format!("[{} + {written}{behind}]", literal(self.before));
        match self.value {
            // These are never empty: the one is written here, the other refused when it is absent.
            Source::Constant(_) | Source::Setting(_) => line,
            _ => format!("({value} == '' ? [] : {line})"),
        }
    }
}

/// The variable with an annotation: its key in camel case.
pub fn variable_of_annotation(annotation: &Annotation) -> String {
    let mut words = annotation.key.split('-');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let (head, tail) = word.split_at(word.len().min(1));
        name + &head.to_ascii_uppercase() + tail
    })
}

/// The variable with a setting.
pub fn variable_of_setting(setting: &Setting) -> String {
    format!("{}Setting", setting.key)
}

/// A setting in CEL: what is set, else its default, else nothing.
pub fn setting_in_cel(setting: &Setting) -> String {
    let (key, absent) = (literal(setting.key), literal(setting.default.unwrap_or_default()));
    format!("variables.settings[?{key}].orValue('') != '' ? variables.settings[{key}] : {absent}")
}

/// An annotation in CEL: what is written if it is of its form, else what counts instead.
pub fn annotation_in_cel(annotation: &Annotation) -> String {
    let key = literal(&annotation.name());
    let fallback = match annotation.fallback {
        Fallback::Nothing => literal(""),
        Fallback::Text(text) => literal(text),
        Fallback::Setting(setting) => format!("variables.{}", variable_of_setting(setting)),
    };
    let is_taken = annotation.form.cel(&format!("variables.annotations[?{key}].orValue('')"));
    format!("{is_taken} ? variables.annotations[{key}].replace(' ', '') : {fallback}")
}
