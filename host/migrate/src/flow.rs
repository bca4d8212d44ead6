//! To come.
use crate::fields::Fields;
use crate::notes::Notes;
use serde_yaml::Value;
pub(crate) fn flow(_: Fields, _: &crate::Options, notes: &mut Notes) -> Option<Value> {
    notes.problem("kind", "not yet");
    None
}
