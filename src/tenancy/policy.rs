//! Policy: what a tenant may see of each table beyond being its own. Configuration in, [`TableRules`] out.
//!
//! A table without a policy is invisible. Its quarantine (`<table>_quarantine`) holds whole events as they were received,
//! with values that column lists hide and without the columns that row rules need. So it is visible only where the table
//! is visible whole; a policy of its own (`[policy.<table>_quarantine]`) goes before that.
//!
//! **Invariant:** a claim that is null, empty, nested or of mixed types opens no row, whether it is required or not.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::access::{RowRule, TableRules};
use super::claims::{ClaimPath, Claims};
use crate::config::{PolicyConfig, RowRuleConfig};
use crate::error::Error;

/// The name of a quarantine, after its table's.
const QUARANTINE: &str = "_quarantine";

/// The rules of all tables, before they meet a token.
#[derive(Debug)]
pub(super) struct Policy {
    tables: BTreeMap<String, TablePolicy>,
    version: u64,
}

#[derive(Debug, Clone)]
struct TablePolicy {
    columns: Option<Vec<String>>,
    rows: Vec<RowPolicy>,
}

#[derive(Debug, Clone)]
struct RowPolicy {
    column: String,
    claim: ClaimPath,
    required: bool,
}

impl Policy {
    /// Checks every table's policy; faults are added to `faults`.
    pub(super) fn new(config: &BTreeMap<String, PolicyConfig>, faults: &mut Vec<String>) -> Self {
        let mut tables = BTreeMap::new();
        for (name, policy) in config {
            let table = TablePolicy {
                columns: (!policy.columns.is_empty()).then(|| policy.columns.clone()),
                rows: policy.rows.iter().filter_map(|rule| row(name, rule, faults)).collect(),
            };
            let is_whole = table.columns.is_none() && table.rows.is_empty();
            let quarantine = format!("{name}{QUARANTINE}");
            if is_whole && !config.contains_key(&quarantine) {
                tables.insert(quarantine, table.clone());
            }
            tables.insert(name.clone(), table);
        }
        Self { version: version(&tables), tables }
    }

    /// Changes whenever the policy does.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// The rules of every visible table for these claims.
    pub(super) fn rules(&self, claims: &Claims) -> BTreeMap<String, TableRules> {
        self.tables.iter().map(|(name, table)| (name.clone(), table.rules(claims))).collect()
    }
}

impl TablePolicy {
    fn rules(&self, claims: &Claims) -> TableRules {
        TableRules {
            columns: self.columns.clone(),
            rows: self.rows.iter().filter_map(|row| row.rule(claims)).collect(),
        }
    }
}

impl RowPolicy {
    /// The rule for these claims; `None` when the claim is missing and may be.
    fn rule(&self, claims: &Claims) -> Option<RowRule> {
        let values = match claims.at(&self.claim) {
            None if self.required => Vec::new(),
            None => return None,
            Some(value) => texts(value),
        };
        Some(RowRule { column: self.column.clone(), values })
    }
}

/// A string, number or boolean, or a list of one of these kinds, as text. Anything else is no value at all.
fn texts(value: &Value) -> Vec<String> {
    let items = match value {
        Value::Array(items) => items.as_slice(),
        single => std::slice::from_ref(single),
    };
    let is_one_kind = items.iter().all(|item| std::mem::discriminant(item) == std::mem::discriminant(&items[0]));
    let texts: Option<Vec<String>> = items.iter().map(text).collect();
    texts.filter(|_| is_one_kind).unwrap_or_default()
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn row(table: &str, rule: &RowRuleConfig, faults: &mut Vec<String>) -> Option<RowPolicy> {
    let place = format!("policy.{table}.rows");
    let claim = ClaimPath::parse(&rule.claim).and_then(|claim| {
        if rule.column.is_empty() { Err(Error::invalid("a rule names no column")) } else { Ok(claim) }
    });
    match claim {
        Ok(claim) => Some(RowPolicy { column: rule.column.clone(), claim, required: rule.required }),
        Err(error) => {
            faults.push(error.at(place).to_string());
            None
        }
    }
}

/// A digest of everything that the policy says.
fn version(tables: &BTreeMap<String, TablePolicy>) -> u64 {
    let digest = Sha256::digest(format!("{tables:?}"));
    digest.iter().take(8).fold(0, |version, byte| version << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tenancy::testing::access_under;
    use crate::tenancy::{Access, Scope};

    fn policy(rows: &[(&str, bool)], columns: &[&str]) -> PolicyConfig {
        let rule = |(claim, required): &(&str, bool)| RowRuleConfig {
            column: "account".to_owned(),
            claim: (*claim).to_owned(),
            required: *required,
        };
        PolicyConfig {
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
            rows: rows.iter().map(rule).collect(),
        }
    }

    async fn access(policies: &[(&str, PolicyConfig)], claims: Value) -> Access {
        let policies = policies.iter().map(|(name, policy)| ((*name).to_owned(), policy.clone())).collect();
        access_under(Some("acme"), &[Scope::Read], &policies, claims).await
    }

    #[tokio::test]
    async fn claims_become_values_or_no_rows() {
        let cases = [
            (json!({"a": "x"}), vec!["x"]),
            (json!({"a": 7}), vec!["7"]),
            (json!({"a": -1.5}), vec!["-1.5"]),
            (json!({"a": true}), vec!["true"]),
            (json!({"a": ["x", "y'; DROP TABLE calls"]}), vec!["x", "y'; DROP TABLE calls"]),
            (json!({"a": [1, 2]}), vec!["1", "2"]),
            (json!({}), vec![]),
            (json!({"a": null}), vec![]),
            (json!({"a": ""}), vec![]),
            (json!({"a": []}), vec![]),
            (json!({"a": {}}), vec![]),
            (json!({"a": ["x", ""]}), vec![]),
            (json!({"a": ["x", 1]}), vec![]),
            (json!({"a": ["x", null]}), vec![]),
            (json!({"a": [["x"]]}), vec![]),
        ];
        for (claims, values) in cases {
            let access = access(&[("calls", policy(&[("a", true)], &[]))], claims.clone()).await;
            let rows = &access.rules("calls").unwrap().rows;
            assert_eq!(rows.len(), 1, "{claims}");
            assert_eq!(
                (rows[0].column.as_str(), &rows[0].values),
                ("account", &values.iter().map(|v| (*v).to_owned()).collect()),
                "{claims}"
            );
        }
    }

    #[tokio::test]
    async fn an_optional_claim_binds_only_when_it_is_there() {
        let policies = [("calls", policy(&[("user.account", false)], &[]))];
        assert_eq!(access(&policies, json!({})).await.rules("calls").unwrap().rows, []);
        for (claims, values) in
            [(json!({"user": {"account": "x"}}), vec!["x"]), (json!({"user": {"account": null}}), vec![])]
        {
            let access = access(&policies, claims.clone()).await;
            assert_eq!(access.rules("calls").unwrap().rows[0].values, values, "{claims}: there but empty means no row");
        }
    }

    #[tokio::test]
    async fn a_quarantine_is_visible_where_its_table_is_visible_whole() {
        let policies = [
            ("whole", policy(&[], &[])),
            ("narrow", policy(&[], &["id"])),
            ("split", policy(&[("a", false)], &[])),
            ("told", policy(&[], &["id"])),
            ("told_quarantine", policy(&[], &["reason"])),
        ];
        let access = access(&policies, json!({})).await;
        assert_eq!(access.rules("whole_quarantine"), Some(&TableRules { columns: None, rows: vec![] }));
        assert_eq!(access.rules("narrow").unwrap().columns, Some(vec!["id".to_owned()]));
        assert_eq!(access.rules("narrow_quarantine"), None);
        assert_eq!(access.rules("split_quarantine"), None);
        assert_eq!(access.rules("told_quarantine").unwrap().columns, Some(vec!["reason".to_owned()]));
        assert_eq!(access.rules("undeclared"), None);
    }

    #[tokio::test]
    async fn a_fingerprint_tells_who_sees_the_same() {
        let base = [("calls", policy(&[("a", true)], &[]))];
        let one = access(&base, json!({"a": "x"})).await.fingerprint();
        assert_eq!(one, access(&base, json!({"a": "x", "b": 1})).await.fingerprint());
        assert_ne!(one, access(&base, json!({"a": "y"})).await.fingerprint());
        assert_ne!(one, access(&base, json!({"a": ["x", "y"]})).await.fingerprint());
        assert_ne!(one, access(&[("calls", policy(&[("a", true)], &["id"]))], json!({"a": "x"})).await.fingerprint());
        assert_ne!(one, access(&[("calls", policy(&[], &[]))], json!({"a": "x"})).await.fingerprint());
    }
}
