//! What request documents mean. Each problem is found and named, not only the first; unknown fields are
//! ignored, since existing clients send more than is asked for. Who asks is never taken from a document.

use automation_core::{
    Classification, Error, ExecuteRequest, ManualRequest, Problem, TestRequest, Ticket,
};
use axum::http::HeaderMap;
use serde_json::{Map, Value};

use crate::document::Document;

/// Reads the document of `POST /automation/execute`.
pub(crate) fn execute(Document(fields): Document) -> Result<ExecuteRequest, Error> {
    let mut fields = Fields::new("", fields);
    let ticket_id = fields.required("ticket_id", TEXT);
    let ticket = fields.required("ticket", OBJECT);
    let classification = fields.required("classification", OBJECT);
    let classification =
        classification.and_then(|object| read_classification(object, &mut fields.problems));
    let ticket = match (ticket_id, ticket) {
        (Some(id), Some(ticket)) => read_ticket(&id, ticket, &mut fields.problems),
        _ => None,
    };
    let problems = fields.problems;
    match (ticket, classification) {
        (Some(ticket), Some(classification)) if problems.is_empty() => {
            Ok(ExecuteRequest::new(ticket, classification))
        }
        _ => Err(Error::InvalidRequest { problems }),
    }
}

/// Reads the document of `POST /automation/manual`.
pub(crate) fn manual(Document(fields): Document) -> Result<ManualRequest, Error> {
    let mut fields = Fields::new("", fields);
    let script_name = fields.required("script_name", TEXT);
    let parameters = fields.optional("parameters", OBJECT);
    let ticket_id = fields.optional("ticket_id", TEXT);
    let dry_run = fields.optional("dry_run", BOOLEAN);
    let problems = fields.problems;
    let Some(script_name) = script_name.filter(|_| problems.is_empty()) else {
        return Err(Error::InvalidRequest { problems });
    };
    let request = ManualRequest::new(script_name)
        .with_parameters(parameters.unwrap_or_default())
        .with_dry_run(dry_run.unwrap_or_default());
    Ok(match ticket_id {
        Some(ticket_id) => request.with_ticket_id(ticket_id),
        None => request,
    })
}

/// Reads the header `Idempotency-Key`, if there is one; the engine says which keys it takes.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Error> {
    let mut values = headers.get_all("idempotency-key").into_iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return match headers.contains_key("idempotency-key") {
            true => Err(Error::invalid_request(
                "/idempotency_key",
                "must be given once",
            )),
            false => Ok(None),
        };
    };
    let key = String::from_utf8_lossy(value.as_bytes());
    Ok(Some(key.into_owned()))
}

/// Reads the document of `POST /automation/test`; without one the script is the engine's choice.
pub(crate) fn test(document: Option<Document>) -> Result<TestRequest, Error> {
    let mut request = TestRequest::default();
    let Some(Document(fields)) = document else {
        return Ok(request);
    };
    let mut fields = Fields::new("", fields);
    request.script_name = fields.optional("script_name", TEXT);
    if fields.problems.is_empty() {
        Ok(request)
    } else {
        Err(Error::InvalidRequest {
            problems: fields.problems,
        })
    }
}

/// The name of a source that is validated without one.
const UNNAMED: &str = "script.py";

/// Reads the document of `POST /automation/scripts/validate`: a name and a source.
pub(crate) fn validate(Document(fields): Document) -> Result<(String, String), Error> {
    let mut fields = Fields::new("", fields);
    let name = fields.optional("name", TEXT);
    let source = fields.required("source", TEXT);
    match source.filter(|_| fields.problems.is_empty()) {
        Some(source) => Ok((name.unwrap_or_else(|| UNNAMED.to_owned()), source)),
        None => Err(Error::InvalidRequest {
            problems: fields.problems,
        }),
    }
}

/// The ticket's own id may be left out; if it is there, it has to be the one that is asked for.
fn read_ticket(
    id: &str,
    mut ticket: Map<String, Value>,
    problems: &mut Vec<Problem>,
) -> Option<Ticket> {
    if ticket.get("id").is_some_and(Value::is_null) {
        ticket.remove("id");
    }
    let own = ticket.entry("id").or_insert_with(|| Value::from(id));
    if own.as_str() != Some(id) {
        problems.push(Problem::new(
            "/ticket/id",
            format!("is {own}, and ticket_id is {id:?}"),
        ));
        return None;
    }
    match Ticket::from_fields(ticket) {
        Ok(ticket) => Some(ticket),
        Err(error) => {
            let at_ticket_id = |problem: Problem| Problem::new("/ticket_id", problem.detail);
            problems.extend(error.problems().into_iter().map(at_ticket_id));
            None
        }
    }
}

fn read_classification(
    object: Map<String, Value>,
    problems: &mut Vec<Problem>,
) -> Option<Classification> {
    let mut fields = Fields::new("/classification", object);
    let category = fields.required("category", TEXT);
    let automation_possible = fields.required("automation_possible", BOOLEAN);
    let confidence = fields.optional("confidence", NUMBER);
    problems.append(&mut fields.problems);
    let mut classification = Classification::new(category?);
    classification.automation_possible = automation_possible?;
    classification.confidence = confidence;
    classification.more = fields.values;
    Some(classification)
}

/// A type of field: how it is named to clients, and how it is taken out of a value.
type Kind<T> = (&'static str, fn(Value) -> Result<T, Value>);

const TEXT: Kind<String> = ("a string", |value| match value {
    Value::String(text) => Ok(text),
    other => Err(other),
});
const OBJECT: Kind<Map<String, Value>> = ("an object", |value| match value {
    Value::Object(object) => Ok(object),
    other => Err(other),
});
const BOOLEAN: Kind<bool> = ("true or false", |value| value.as_bool().ok_or(value));
const NUMBER: Kind<f64> = ("a number", |value| value.as_f64().ok_or(value));

/// The fields of an object that are not read yet, and what was wrong with those that are.
struct Fields {
    pointer: &'static str,
    values: Map<String, Value>,
    problems: Vec<Problem>,
}

impl Fields {
    const fn new(pointer: &'static str, values: Map<String, Value>) -> Self {
        Self {
            pointer,
            values,
            problems: Vec::new(),
        }
    }

    fn required<T>(&mut self, name: &str, kind: Kind<T>) -> Option<T> {
        if !self.values.contains_key(name) {
            self.problem(name, "is missing".to_owned());
            return None;
        }
        self.take(name, kind)
    }

    /// `null` is how some clients leave a field out.
    fn optional<T>(&mut self, name: &str, kind: Kind<T>) -> Option<T> {
        if self.values.get(name).is_none_or(Value::is_null) {
            self.values.remove(name);
            return None;
        }
        self.take(name, kind)
    }

    fn take<T>(&mut self, name: &str, (expected, read): Kind<T>) -> Option<T> {
        match read(self.values.remove(name)?) {
            Ok(value) => Some(value),
            Err(_) => {
                self.problem(name, format!("must be {expected}"));
                None
            }
        }
    }

    fn problem(&mut self, name: &str, detail: String) {
        self.problems
            .push(Problem::new(format!("{}/{name}", self.pointer), detail));
    }
}

#[cfg(test)]
mod tests {
    use automation_core::Error;
    use serde_json::{Value, json};

    use super::{Document, execute, manual, test, validate};

    fn document(value: Value) -> Document {
        match value {
            Value::Object(fields) => Document(fields),
            other => panic!("{other} is not an object"),
        }
    }

    fn pointers<T: std::fmt::Debug>(result: Result<T, Error>) -> Vec<String> {
        result
            .unwrap_err()
            .problems()
            .into_iter()
            .map(|problem| problem.pointer)
            .collect()
    }

    #[test]
    fn every_missing_field_is_named() {
        assert_eq!(
            pointers(execute(document(json!({})))),
            ["/ticket_id", "/ticket", "/classification"]
        );
        assert_eq!(
            pointers(execute(document(
                json!({"ticket_id": "T", "ticket": {}, "classification": {}})
            ))),
            [
                "/classification/category",
                "/classification/automation_possible"
            ]
        );
        assert_eq!(
            pointers(manual(document(json!({"parameters": 1, "ticket_id": 2})))),
            ["/script_name", "/parameters", "/ticket_id"]
        );
        assert_eq!(
            pointers(test(Some(document(json!({"script_name": 1}))))),
            ["/script_name"]
        );
    }

    #[test]
    fn a_source_has_a_name_or_a_default_one() {
        let read = |value| validate(document(value));
        assert_eq!(
            read(json!({ "source": "x", "name": "a.py" })).unwrap(),
            ("a.py".to_owned(), "x".to_owned())
        );
        assert_eq!(read(json!({ "source": "" })).unwrap().0, "script.py");
        assert_eq!(pointers(read(json!({ "name": 1 }))), ["/name", "/source"]);
        assert_eq!(pointers(read(json!({ "source": 1 }))), ["/source"]);
    }

    #[test]
    fn automation_possible_is_a_boolean_and_nothing_like_one() {
        for possible in [json!("true"), json!(1), json!(null), json!([])] {
            let classification =
                json!({"category": "Device Slow", "automation_possible": possible});
            let fields = json!({"ticket_id": "T", "ticket": {}, "classification": classification});
            assert_eq!(
                pointers(execute(document(fields))),
                ["/classification/automation_possible"],
                "{possible}"
            );
        }
    }

    #[test]
    fn the_tickets_own_id_is_the_ticket_id() {
        let with_id = |ticket: Value| {
            let classification =
                json!({"category": "Device Slow", "automation_possible": true, "model": "x"});
            execute(document(
                json!({"ticket_id": "T-1", "ticket": ticket, "classification": classification, "extra": 1}),
            ))
        };
        let request = with_id(json!({"issue_text": "slow"})).unwrap();
        assert_eq!((request.ticket.id(), request.actor), ("T-1", None));
        assert_eq!(request.classification.more["model"], "x");
        assert!(with_id(json!({"id": "T-1"})).is_ok());
        assert!(with_id(json!({"id": null})).is_ok());
        for id in [json!("T-2"), json!(1), json!("")] {
            assert_eq!(pointers(with_id(json!({"id": id}))), ["/ticket/id"], "{id}");
        }
    }

    #[test]
    fn a_hostile_ticket_id_is_named_where_it_was_given() {
        for id in ["", " x", "a\u{0}b", &"x".repeat(129)] {
            let classification = json!({"category": "Device Slow", "automation_possible": true});
            let fields = json!({"ticket_id": id, "ticket": {}, "classification": classification});
            assert_eq!(
                pointers(execute(document(fields))),
                ["/ticket_id"],
                "{id:?}"
            );
        }
    }

    #[test]
    fn an_actor_in_a_document_is_nobody() {
        let request = manual(document(
            json!({"script_name": "x.py", "actor": "root", "ticket_id": null}),
        ))
        .unwrap();
        assert_eq!((request.actor, request.ticket_id), (None, None));
        assert_eq!(test(None).unwrap(), automation_core::TestRequest::default());
    }
}
