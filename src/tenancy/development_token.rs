//! Development tokens, signed with an issuer's shared secret. In production, an identity provider issues tokens
//! instead.
//!
//! **Invariant:** a [`Verifier`](super::Verifier) with the same configuration accepts every development token.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::access::Scope;
use super::claims::ClaimPath;
use super::secret_file::shared_secret;
use super::signature::{self, Algorithm, VerificationKey};
use crate::clock::Clock;
use crate::config::{AuthConfig, IssuerConfig};
use crate::error::{Error, Result, did_you_mean};

/// Parameters of a development token for an issuer with a shared secret.
#[derive(Debug, Clone)]
pub struct DevelopmentToken {
    /// The issuer's name in the configuration. The name may be empty if only one issuer has a secret.
    pub issuer: String,
    /// The tenant, or `None` for an operator.
    pub tenant: Option<String>,
    /// The subject (`sub`).
    pub subject: String,
    /// The scopes.
    pub scopes: Vec<Scope>,
    /// The time for which the token is valid, starting now.
    pub age: Duration,
    /// Additional claims. They must not include a claim that another field of this struct sets.
    pub claims: Map<String, Value>,
}

impl DevelopmentToken {
    /// Returns the signed token, or `Invalid` if the issuer has no secret or a verifier would refuse the token.
    pub fn sign(&self, auth: &AuthConfig, clock: &Clock) -> Result<String> {
        let (name, issuer) = self.find(auth)?;
        let secret = shared_secret(issuer)?.ok_or_else(|| {
            Error::invalid(format!("issuer `{name}` has no secret: get tokens from its identity provider"))
        })?;
        let key = VerificationKey::secret(&secret);
        let algorithm =
            issuer.algorithms.iter().filter_map(|name| Algorithm::parse(name)).find(|one| key.matches_algorithm(*one));
        let algorithm = algorithm.ok_or_else(|| {
            Error::invalid(format!(
                "issuer `{name}` has no algorithm that matches its secret: HS256 requires at least 32 bytes"
            ))
        })?;
        if self.age > auth.token_age_max {
            let max = auth.token_age_max.as_secs();
            return Err(Error::invalid(format!(
                "the token would be valid for {} s; at most {max} s are allowed (limit auth.token_age_max)",
                self.age.as_secs()
            )));
        }
        let header = json!({ "alg": algorithm.name(), "typ": "JWT" });
        signature::sign(
            algorithm,
            &secret,
            &header.to_string(),
            &Value::Object(self.claims(issuer, clock)?).to_string(),
        )
    }

    fn find<'a>(&self, auth: &'a AuthConfig) -> Result<(&'a str, &'a IssuerConfig)> {
        if !self.issuer.is_empty() {
            let found = auth.issuers.get_key_value(&self.issuer);
            let hint = || did_you_mean(&self.issuer, auth.issuers.keys().map(String::as_str));
            let missing = || Error::invalid(format!("unknown issuer `{}`{}", self.issuer, hint()));
            return found.map(|(name, issuer)| (name.as_str(), issuer)).ok_or_else(missing);
        }
        let mut with_secret = auth.issuers.iter().filter(|(_, issuer)| {
            issuer.secret_file.is_some() || issuer.secret.as_ref().is_some_and(|secret| !secret.is_empty())
        });
        match (with_secret.next(), with_secret.next()) {
            (Some((name, issuer)), None) => Ok((name, issuer)),
            (None, _) => Err(Error::invalid("no issuer has a secret to sign with: set one under auth.issuers")),
            (Some((one, _)), Some((other, _))) => {
                Err(Error::invalid(format!("issuers `{one}` and `{other}` both have a secret: name one of them")))
            }
        }
    }

    fn claims(&self, issuer: &IssuerConfig, clock: &Clock) -> Result<Map<String, Value>> {
        let tenant = ClaimPath::parse(&issuer.tenant_claim)?;
        let scope = ClaimPath::parse(&issuer.scope_claim)?;
        let own = ["iss", "aud", "sub", "iat", "exp", "jti", tenant.first(), scope.first()];
        if let Some(claim) = own.into_iter().find(|claim| self.claims.contains_key(*claim)) {
            return Err(Error::invalid(format!("claim `{claim}` cannot be added: it is set from the other arguments")));
        }
        let now = clock.now_seconds();
        let age = i64::try_from(self.age.as_secs()).unwrap_or(i64::MAX);
        let words: Vec<&str> = self.scopes.iter().map(|scope| scope.as_str()).collect();
        let mut claims = self.claims.clone();
        claims.insert("iss".to_owned(), json!(issuer.issuer));
        claims.insert("aud".to_owned(), json!(issuer.audience));
        claims.insert("sub".to_owned(), json!(self.subject));
        claims.insert("iat".to_owned(), json!(now));
        claims.insert("exp".to_owned(), json!(now.saturating_add(age)));
        claims.insert("jti".to_owned(), json!(uuid::Uuid::new_v4().to_string()));
        scope.put(&mut claims, json!(words.join(" ")));
        if let Some(name) = &self.tenant {
            tenant.put(&mut claims, json!(name));
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::clock::SECOND;
    use crate::tenancy::Verifier;
    use crate::tenancy::testing::{auth, issuer};

    fn token() -> DevelopmentToken {
        DevelopmentToken {
            issuer: String::new(),
            tenant: Some("acme".to_owned()),
            subject: "ann".to_owned(),
            scopes: vec![Scope::Read, Scope::Admin],
            age: Duration::from_secs(60),
            claims: Map::new(),
        }
    }

    #[tokio::test]
    async fn development_tokens_are_accepted() {
        let clock = Clock::fixed(1_800_000_000 * SECOND);
        let mut auth = auth();
        let issuer = auth.issuers.get_mut("dev").unwrap();
        issuer.tenant_claim = "app.tenant".to_owned();
        issuer.scope_claim = "app.scopes".to_owned();
        let refused = DevelopmentToken { claims: [("app".to_owned(), json!({}))].into_iter().collect(), ..token() };
        assert!(refused.sign(&auth, &clock).unwrap_err().message().contains("claim `app`"));
        let verifier = Verifier::new(&auth, &BTreeMap::new(), clock.clone()).unwrap();
        let signed = token().sign(&auth, &clock).unwrap();
        let access = verifier.verify(&signed).await.unwrap();
        assert_eq!(access.tenant().unwrap().as_str(), "acme");
        assert!(access.require(Scope::Read).is_ok() && access.require(Scope::Ingest).is_err());
        clock.set((1_800_000_000 + 60 + 30) * SECOND);
        assert!(verifier.verify(&signed).await.unwrap_err().message().contains("expired"));
    }

    #[test]
    fn tokens_that_would_be_refused_are_not_signed() {
        let mut two = auth();
        two.issuers.insert("more".to_owned(), issuer());
        let mut none = auth();
        none.issuers.get_mut("dev").unwrap().secret = None;
        let claims: Map<String, Value> = [("iss".to_owned(), json!("x"))].into_iter().collect();
        let cases = [
            (token(), two, "name one"),
            (token(), none.clone(), "no issuer has a secret"),
            (DevelopmentToken { issuer: "dev".to_owned(), ..token() }, none, "has no secret"),
            (DevelopmentToken { issuer: "dve".to_owned(), ..token() }, auth(), "did you mean `dev`?"),
            (DevelopmentToken { age: Duration::from_secs(86_401), ..token() }, auth(), "auth.token_age_max"),
            (DevelopmentToken { claims, ..token() }, auth(), "claim `iss` cannot be added"),
        ];
        for (token, auth, reason) in cases {
            let error = token.sign(&auth, &Clock::System).unwrap_err();
            assert!(error.message().contains(reason), "{error:?}, expected `{reason}`");
        }
    }
}
