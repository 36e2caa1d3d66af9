//! The workers file: where the workers of a fleet listen.

use omb_machine::config::{
    ConfigErrors, Leniency, Parsed,
    yaml::{Reader, Value},
};

/// Reads the workers file `file`, whose content is `text`: a list of addresses under `workers`.
///
/// The addresses are texts as written, at least one of them, none empty and none twice (a worker follows one
/// controller, and listed twice it would get twice the load). Whether they are well-formed is checked on connecting.
///
/// # Errors
/// All that is wrong with the file.
pub fn parse(file: &str, text: &str, leniency: Leniency) -> Result<Parsed<Vec<String>>, ConfigErrors> {
    let mut reader =
        Reader::open(file, text, leniency, "`workers:` and a list of addresses, one `- http://host:port` per line")?;
    reader.check_keys(&["workers"], &[]);
    let workers = workers(&mut reader);
    reader.finish(workers)
}

fn workers(reader: &mut Reader<'_>) -> Option<Vec<String>> {
    let key = "workers";
    let allowed = "a list of addresses, one `- http://host:port` per line";
    if !reader.require(key, "give the workers' addresses, one `- http://host:port` per line") {
        return None;
    }
    let node = reader.get(key)?.clone();
    let items = match &node.value {
        Value::List(items) if !items.is_empty() => items,
        _ => {
            reader.not_allowed(key, &node, allowed, None);
            return None;
        }
    };
    let mut workers = Vec::with_capacity(items.len());
    for item in items {
        match &item.value {
            Value::Scalar { text, .. } if !text.trim().is_empty() && !workers.contains(text) => {
                workers.push(text.clone())
            }
            Value::Scalar { text, .. } if workers.contains(text) => {
                reader.not_allowed(key, item, "each address once", None);
            }
            _ => reader.not_allowed(key, item, "an address such as http://host:port", None),
        }
    }
    Some(workers)
}
