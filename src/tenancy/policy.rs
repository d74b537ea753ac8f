//! Policies determine which columns and rows of its own data a tenant may see. The configured policies and the claims
//! in a caller's token determine the caller's [`TableRules`].
//!
//! A table without a policy is invisible. A quarantine (`<table>_quarantine`) stores complete events as received. These
//! events include values that a column list would hide, and a quarantine lacks the columns that row rules need. A
//! quarantine is therefore visible only if its table has neither a column list nor row rules, or if
//! `[policy.<table>_quarantine]` is configured.
//!
//! **Invariant:** if a claim is null, empty, nested, or a list with mixed types, no rows are visible, even if the claim
//! is optional.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::access::{RowRule, TableRules};
use super::claims::{ClaimPath, Claims};
use crate::config::{PolicyConfig, QUARANTINE_SUFFIX, RowRuleConfig};
use crate::error::Error;

/// The policies of all tables, before a token's claims are applied to them.
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
    /// Checks every table's policy, and appends the error messages to `problems`.
    pub(super) fn new(config: &BTreeMap<String, PolicyConfig>, problems: &mut Vec<String>) -> Self {
        let mut tables = BTreeMap::new();
        for (name, policy) in config {
            let table = TablePolicy {
                columns: (!policy.columns.is_empty()).then(|| policy.columns.clone()),
                rows: policy.rows.iter().filter_map(|rule| row(name, rule, problems)).collect(),
            };
            let is_unrestricted = table.columns.is_none() && table.rows.is_empty();
            let quarantine = format!("{name}{QUARANTINE_SUFFIX}");
            if is_unrestricted && !config.contains_key(&quarantine) {
                tables.insert(quarantine, table.clone());
            }
            tables.insert(name.clone(), table);
        }
        Self { version: version(&tables), tables }
    }

    /// Returns a digest of the policies, which changes whenever a policy changes.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Returns the rules of every visible table for a token with these claims.
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
    /// Returns the row rule for a token with these claims, or `None` if the policy's claim is optional and the token
    /// lacks it.
    fn rule(&self, claims: &Claims) -> Option<RowRule> {
        let values = match claims.at(&self.claim) {
            None if self.required => Vec::new(),
            None => return None,
            Some(value) => strings(value, claims.json_at(&self.claim).unwrap_or_default()),
        };
        Some(RowRule { column: self.column.clone(), values })
    }
}

/// Converts the value of a claim to a list of strings. The value may be a string, number or boolean, or a list of only
/// strings, only numbers or only booleans. For any other value, the result is empty. `json` is the text of the value. A
/// number is returned as it is written in the token, with all digits.
fn strings(value: &Value, json: &str) -> Vec<String> {
    let (items, texts) = match value {
        Value::Array(items) => {
            let texts: Vec<&RawValue> = serde_json::from_str(json).unwrap_or_default();
            (items.as_slice(), texts.into_iter().map(RawValue::get).collect())
        }
        single => (std::slice::from_ref(single), vec![json]),
    };
    let is_one_kind = items.iter().all(|item| std::mem::discriminant(item) == std::mem::discriminant(&items[0]));
    let strings: Option<Vec<String>> = items.iter().zip(texts).map(|(item, text)| string(item, text)).collect();
    strings.filter(|strings| is_one_kind && strings.len() == items.len()).unwrap_or_default()
}

fn string(value: &Value, json: &str) -> Option<String> {
    match value {
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        Value::Number(_) => Some(json.to_owned()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn row(table: &str, rule: &RowRuleConfig, problems: &mut Vec<String>) -> Option<RowPolicy> {
    let key = format!("policy.{table}.rows");
    let claim = ClaimPath::parse(&rule.claim).and_then(|claim| {
        if rule.column.is_empty() { Err(Error::invalid("a rule has no column: set `column`")) } else { Ok(claim) }
    });
    match claim {
        Ok(claim) => Some(RowPolicy { column: rule.column.clone(), claim, required: rule.required }),
        Err(error) => {
            problems.push(error.at(key).to_string());
            None
        }
    }
}

/// Returns a digest of the policies.
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
    async fn claims_become_allowed_values_or_permit_no_rows() {
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

    #[test]
    fn numbers_keep_all_digits() {
        use base64::Engine as _;
        let values = |json: &str| {
            let part = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!(r#"{{"a": {{"b": {json}}}}}"#));
            let rule = RowPolicy { column: "c".to_owned(), claim: ClaimPath::parse("a.b").unwrap(), required: true };
            rule.rule(&Claims::parse(&part).unwrap()).unwrap().values
        };
        for number in ["9007199254740993.0", "12345678901234567890123", "0.1000000000000000055", "1e3", "-1.50", "7"] {
            assert_eq!(values(number), [number]);
            assert_eq!(values(&format!("[ 1 , {number}]")), ["1", number]);
        }
        assert_eq!(values("[]"), [""; 0]);
    }

    #[tokio::test]
    async fn an_optional_claim_applies_only_if_present() {
        let policies = [("calls", policy(&[("user.account", false)], &[]))];
        assert_eq!(access(&policies, json!({})).await.rules("calls").unwrap().rows, []);
        for (claims, values) in
            [(json!({"user": {"account": "x"}}), vec!["x"]), (json!({"user": {"account": null}}), vec![])]
        {
            let access = access(&policies, claims.clone()).await;
            assert_eq!(
                access.rules("calls").unwrap().rows[0].values,
                values,
                "{claims}: a present but empty claim permits no rows"
            );
        }
    }

    #[tokio::test]
    async fn a_quarantine_is_visible_if_its_table_is_unrestricted() {
        let policies = [
            ("whole", policy(&[], &[])),
            ("narrow", policy(&[], &["id"])),
            ("split", policy(&[("a", false)], &[])),
            ("explicit", policy(&[], &["id"])),
            ("explicit_quarantine", policy(&[], &["reason"])),
        ];
        let access = access(&policies, json!({})).await;
        assert_eq!(access.rules("whole_quarantine"), Some(&TableRules { columns: None, rows: vec![] }));
        assert_eq!(access.rules("narrow").unwrap().columns, Some(vec!["id".to_owned()]));
        assert_eq!(access.rules("narrow_quarantine"), None);
        assert_eq!(access.rules("split_quarantine"), None);
        assert_eq!(access.rules("explicit_quarantine").unwrap().columns, Some(vec!["reason".to_owned()]));
        assert_eq!(access.rules("undeclared"), None);
    }

    #[tokio::test]
    async fn callers_with_the_same_rules_share_a_fingerprint() {
        let base = [("calls", policy(&[("a", true)], &[]))];
        let one = access(&base, json!({"a": "x"})).await.fingerprint();
        assert_eq!(one, access(&base, json!({"a": "x", "b": 1})).await.fingerprint());
        assert_ne!(one, access(&base, json!({"a": "y"})).await.fingerprint());
        assert_ne!(one, access(&base, json!({"a": ["x", "y"]})).await.fingerprint());
        assert_ne!(one, access(&[("calls", policy(&[("a", true)], &["id"]))], json!({"a": "x"})).await.fingerprint());
        assert_ne!(one, access(&[("calls", policy(&[], &[]))], json!({"a": "x"})).await.fingerprint());
    }
}
