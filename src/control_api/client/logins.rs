//! Login attempts and incidents.

use hyper::Method;

use super::{Client, ClientError};
use crate::control_api::types::{IncidentView, List, LoginAttempt, LoginFilter, LoginReport};

impl Client {
    /// `GET /v1/logins`, the newest first; at most `limit`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn logins(
        &self,
        filter: &LoginFilter,
        limit: usize,
    ) -> Result<Vec<LoginAttempt>, ClientError> {
        let mut all: Vec<LoginAttempt> = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = limit.saturating_sub(all.len()).clamp(1, 1000).to_string();
            let source = filter.source.map(|source| source.to_string());
            let parameters = [
                ("router", filter.router.as_deref()),
                ("username", filter.username.as_deref()),
                ("outcome", filter.outcome.as_deref()),
                ("source", source.as_deref()),
                ("unknown", filter.unknown.then_some("true")),
                ("limit", Some(page.as_str())),
                ("after", after.as_deref()),
            ];
            let given = parameters.iter().filter_map(|(key, value)| Some((key, (*value)?)));
            let query: Vec<String> =
                given.map(|(key, value)| format!("{key}={}", encode(value))).collect();
            let path = format!("/v1/logins?{}", query.join("&"));
            let list: List<LoginAttempt> = self.ask(Method::GET, &path, None::<&()>).await?;
            all.extend(list.items);
            after = list.next;
            if after.is_none() || all.len() >= limit {
                return Ok(all);
            }
        }
    }

    /// `GET /v1/logins/{name}`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn why(&self, name: &str) -> Result<LoginReport, ClientError> {
        self.ask(Method::GET, &format!("/v1/logins/{}", encode(name)), None::<&()>).await
    }

    /// `GET /v1/logins/{name}/capture`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn capture(&self, name: &str) -> Result<Vec<u8>, ClientError> {
        let path = format!("/v1/logins/{}/capture", encode(name));
        Ok(self.send(Method::GET, &path, None::<&()>).await?.to_vec())
    }

    /// `GET /v1/incidents`; `since` in seconds.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn incidents(&self, since: u64) -> Result<Vec<IncidentView>, ClientError> {
        let path = format!("/v1/incidents?since={since}");
        let list: List<IncidentView> = self.ask(Method::GET, &path, None::<&()>).await?;
        Ok(list.items)
    }
}

/// Text as one segment of a path, or one value of a query. Source: RFC 3986 2.3.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    // "." and ".." would be taken for folders.
    if out == "." || out == ".." { out.replace('.', "%2E") } else { out }
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn a_name_is_one_segment_whatever_it_is() {
        assert_eq!(encode("branch-42"), "branch-42");
        assert_eq!(encode("../a b?\u{e4}"), "..%2Fa%20b%3F%C3%A4");
        assert_eq!((encode("."), encode("..")), ("%2E".into(), "%2E%2E".into()));
    }
}
