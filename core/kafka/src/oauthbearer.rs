//! Tokens for logins with OAUTHBEARER: how they are requested, how the answer is read, and how Amazon's are signed.
//!
//! Two kinds: a token that a server issues for a client's id and secret (OpenID Connect, RFC 6749 section 4.4), and one
//! that the client signs by itself with AWS's credentials (AWS_MSK_IAM, an address signed by Signature Version 4). A
//! server's answer is untrusted until it is checked.

use std::time::Duration;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use omb_machine::{config::setting::Secret, printable::printable_within, quantity::rfc3339, time::WallTime};

/// Longest answer of a token server that is read: 64 KiB.
pub const ANSWER_MAX: usize = 64 << 10;

/// Longest token: brokers accept no longer one in a login.
const TOKEN_MAX: usize = 16 << 10;

/// Lifetime of a token if neither its server nor the token itself states one.
const LIFETIME_DEFAULT: Duration = Duration::from_secs(300);

/// A longer lifetime is not accepted: the token is fetched again after a day.
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A token, and its lifetime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The value for the broker.
    pub value: Secret,
    /// Its principal, printable; for messages.
    pub principal: String,
    /// Counts from when it was fetched.
    pub lifetime: Duration,
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The server refuses the client.
    #[error("the server refuses to give a token: {0}")]
    Refused(String),
    /// The server answered with something other than a token.
    #[error("the server's answer is no token: {0}")]
    Unsound(String),
}

/// The credentials of a client, as in the header `Authorization`.
#[must_use]
pub fn basic(id: &str, secret: &Secret) -> Secret {
    Secret::new(format!("Basic {}", STANDARD.encode(format!("{id}:{}", secret.expose()))))
}

/// The body of the request for a token.
#[must_use]
pub fn form(scope: Option<&str>) -> String {
    match scope.filter(|scope| !scope.is_empty()) {
        Some(scope) => format!("grant_type=client_credentials&scope={}", escaped(scope)),
        None => "grant_type=client_credentials".to_owned(),
    }
}

/// Reads the answer of a token server. `client` is the principal if the token does not name one.
///
/// # Errors
/// If the server refuses, or the answer is not a token that a broker could accept.
pub fn read_answer(status: u16, body: &[u8], client: &str, now: WallTime) -> Result<Token, TokenError> {
    let unsound = |what: &str| TokenError::Unsound(what.to_owned());
    let answer: Option<Value> = serde_json::from_slice(body).ok();
    if status != 200 {
        let field = |name: &str| answer.as_ref().and_then(|answer| answer[name].as_str());
        let words = [field("error"), field("error_description")].into_iter().flatten();
        let words: Vec<String> = words.map(|text| printable_within(text, 200)).collect();
        let words = if words.is_empty() { String::new() } else { format!(", {}", words.join(": ")) };
        let text = format!("status {status}{words}");
        return Err(if (400..500).contains(&status) { TokenError::Refused(text) } else { TokenError::Unsound(text) });
    }
    let answer = answer.filter(Value::is_object).ok_or_else(|| unsound("it is not a JSON object"))?;
    let value = answer["access_token"].as_str().ok_or_else(|| unsound("it holds no access_token"))?;
    if answer["token_type"].as_str().is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(unsound("its token_type is not Bearer"));
    }
    // RFC 6750, section 2.1; anything else could end the field in the login, and begin another one.
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
    if value.is_empty() || value.len() > TOKEN_MAX || !value.chars().all(plain) {
        return Err(unsound("its access_token is not made of the characters that a token has, or too long"));
    }
    let claims = claims(value);
    let stated = match &answer["expires_in"] {
        Value::Null => None,
        seconds => {
            let seconds = seconds.as_f64().or_else(|| seconds.as_str()?.parse().ok());
            Some(seconds.ok_or_else(|| unsound("its expires_in is no number"))?)
        }
    };
    let until = claims.as_ref().and_then(|claims| claims["exp"].as_f64());
    let seconds = stated.or_else(|| until.map(|until| until - seconds_of(now)));
    let lifetime = match seconds {
        None => LIFETIME_DEFAULT,
        Some(seconds) if seconds >= 1.0 => Duration::from_secs_f64(seconds.min(LIFETIME_MAX.as_secs_f64())),
        Some(_) => return Err(unsound("its token has expired: do the clocks agree?")),
    };
    let principal = claims.as_ref().and_then(|claims| claims["sub"].as_str()).unwrap_or(client);
    let principal = if principal.is_empty() { "unknown" } else { principal };
    Ok(Token { value: Secret::new(value), principal: printable_within(principal, 200), lifetime })
}

fn seconds_of(now: WallTime) -> f64 {
    Duration::from_nanos(now.0).as_secs_f64()
}

/// A token's own claims, if it is a JWT. Its signature is not checked here: that is for the broker.
fn claims(token: &str) -> Option<Value> {
    let claims = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

/// Extensions of a login (`name=value,name=value`), each a name of letters and its value.
///
/// # Errors
/// The part that is not of this form.
pub fn extensions(text: &str) -> Result<Vec<(String, String)>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or_default();
            let sound = !name.is_empty()
                && name != "auth"
                && name.chars().all(|c| c.is_ascii_alphabetic())
                && value.chars().all(|c| c.is_ascii_graphic() || c == ' ');
            let allowed = "name=value, several separated by commas, names of letters";
            sound.then(|| (name.to_owned(), value.to_owned())).ok_or_else(|| format!("not of the form {allowed}"))
        })
        .collect()
}

/// Credentials of AWS.
#[derive(Clone, Debug)]
pub struct AwsCredentials {
    /// `AWS_ACCESS_KEY_ID`.
    pub access_key: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_key: Secret,
    /// `AWS_SESSION_TOKEN`, where the credentials are temporary.
    pub session_token: Option<Secret>,
}

/// How long a token for Amazon MSK is good: as long as its own libraries ask for.
const MSK_LIFETIME: Duration = Duration::from_secs(900);

/// A token for Amazon MSK in `region`: an address that only the owner of the credentials can sign.
#[must_use]
pub fn msk_token(credentials: &AwsCredentials, region: &str, now: WallTime) -> Token {
    let host = format!("kafka.{region}.amazonaws.com");
    let scope =
        AwsScope { region, service: "kafka-cluster", host: &host, path: "/", payload: &hex(&Sha256::digest(b"")) };
    let query = presigned(credentials, &scope, &[("Action", "kafka-cluster:Connect")], MSK_LIFETIME, now);
    let url = format!("https://{host}/?{query}&User-Agent={}", escaped(concat!("omb/", env!("CARGO_PKG_VERSION"))));
    Token { value: Secret::new(URL_SAFE_NO_PAD.encode(url)), principal: "AWS".to_owned(), lifetime: MSK_LIFETIME }
}

/// The region of Amazon's brokers, from their names: `b-1.name.x.c2.kafka.eu-west-1.amazonaws.com:9098`.
#[must_use]
pub fn region_of(servers: &str) -> Option<&str> {
    servers.split(',').find_map(|server| {
        let host = server.trim().rsplit("://").next()?.split(':').next()?;
        let name = host.strip_suffix(".amazonaws.com").or_else(|| host.strip_suffix(".amazonaws.com.cn"))?;
        let mut labels = name.rsplit('.');
        let region = labels.next().filter(|region| is_region(region))?;
        labels.next().is_some_and(|label| label == "kafka" || label == "kafka-serverless").then_some(region)
    })
}

/// Whether a text can be a region's name; it becomes part of a host's name.
#[must_use]
pub fn is_region(text: &str) -> bool {
    (2..=32).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !text.starts_with('-')
}

/// What a signature applies to.
struct AwsScope<'a> {
    region: &'a str,
    service: &'a str,
    host: &'a str,
    path: &'a str,
    /// The hash of the request's body, as the service expects it.
    payload: &'a str,
}

/// The query of an address that is signed by Signature Version 4, in its parameters. `parameters` precede `X-Amz-`.
fn presigned(
    credentials: &AwsCredentials,
    scope: &AwsScope<'_>,
    parameters: &[(&str, &str)],
    lifetime: Duration,
    now: WallTime,
) -> String {
    let (date, time) = amz_date(now);
    let AwsScope { region, service, host, path, payload } = *scope;
    let scope = format!("{date}/{region}/{service}/aws4_request");
    let (credential, seconds) = (format!("{}/{scope}", credentials.access_key), lifetime.as_secs().to_string());
    let mut all: Vec<(&str, &str)> = parameters.to_vec();
    all.extend([
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
        ("X-Amz-Credential", credential.as_str()),
        ("X-Amz-Date", time.as_str()),
        ("X-Amz-Expires", seconds.as_str()),
        ("X-Amz-SignedHeaders", "host"),
    ]);
    if let Some(token) = &credentials.session_token {
        all.push(("X-Amz-Security-Token", token.expose()));
    }
    all.sort_unstable();
    let query: Vec<String> = all.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect();
    let query = query.join("&");
    let request = format!("GET\n{path}\n{query}\nhost:{host}\n\nhost\n{payload}");
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(request.as_bytes())));
    let key = signing_key(&credentials.secret_key, &date, region, service);
    format!("{query}&X-Amz-Signature={}", hex(&mac(&key, to_sign.as_bytes())))
}

fn signing_key(secret: &Secret, date: &str, region: &str, service: &str) -> Vec<u8> {
    let first = mac(format!("AWS4{}", secret.expose()).as_bytes(), date.as_bytes());
    [region, service, "aws4_request"].iter().fold(first, |key, part| mac(&key, part.as_bytes()))
}

fn mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length is taken");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Everything but RFC 3986's unreserved characters as `%XX`.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// `20130524` and `20130524T000000Z`.
fn amz_date(now: WallTime) -> (String, String) {
    let text: String = rfc3339(now).chars().filter(|c| !matches!(c, '-' | ':')).collect();
    let (seconds, _) = text.split_once('.').expect("a time to the millisecond");
    (seconds.chars().take(8).collect(), format!("{seconds}Z"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: WallTime = WallTime(1_700_000_000_000_000_000);

    fn read(status: u16, body: &str) -> Result<Token, TokenError> {
        read_answer(status, body.as_bytes(), "client", NOW)
    }

    fn jwt(claims: &str) -> String {
        format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn what_is_asked() {
        assert_eq!(form(None), "grant_type=client_credentials");
        assert_eq!(
            form(Some("api://x/.default a&b")),
            "grant_type=client_credentials&scope=api%3A%2F%2Fx%2F.default%20a%26b"
        );
        assert_eq!(basic("Aladdin", &Secret::new("open sesame")).expose(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }

    #[test]
    fn answers_are_read() {
        let opaque =
            read(200, r#"{"access_token":"abc.def-1","token_type":"bearer","expires_in":3600,"x":null}"#).expect("one");
        assert_eq!((opaque.value.expose(), opaque.principal.as_str()), ("abc.def-1", "client"));
        assert_eq!(opaque.lifetime, Duration::from_secs(3_600));
        assert!(!format!("{opaque:?}").contains("abc"));
        let own = jwt(r#"{"sub":"alice","exp":1700000060}"#);
        let token = read(200, &format!(r#"{{"access_token":"{own}"}}"#)).expect("one");
        assert_eq!((token.principal.as_str(), token.lifetime), ("alice", Duration::from_secs(60)));
        assert_eq!(read(200, r#"{"access_token":"a"}"#).map(|token| token.lifetime), Ok(LIFETIME_DEFAULT));
        let long = read(200, r#"{"access_token":"a","expires_in":"1e300"}"#);
        assert_eq!(long.map(|token| token.lifetime), Ok(LIFETIME_MAX));
    }

    #[test]
    fn hostile_answers_are_refused() {
        let expired = jwt(r#"{"exp":1}"#);
        for (body, what) in [
            ("", "not a JSON object"),
            ("[]", "not a JSON object"),
            ("{}", "no access_token"),
            (r#"{"access_token":7}"#, "no access_token"),
            (r#"{"access_token":""}"#, "characters"),
            (r#"{"access_token":"a\u0001auth=b"}"#, "characters"),
            (r#"{"access_token":"a","token_type":"mac"}"#, "not Bearer"),
            (r#"{"access_token":"a","expires_in":0}"#, "expired"),
            (r#"{"access_token":"a","expires_in":-1e99}"#, "expired"),
            (r#"{"access_token":"a","expires_in":[]}"#, "no number"),
            (&format!(r#"{{"access_token":"{expired}"}}"#), "expired"),
            (&format!(r#"{{"access_token":"{}"}}"#, "a".repeat(TOKEN_MAX + 1)), "too long"),
        ] {
            let error = read(200, body).expect_err(what);
            assert!(matches!(error, TokenError::Unsound(_)) && error.to_string().contains(what), "{error}: {what}");
        }
        let refused = read(401, r#"{"error":"invalid_client","error_description":"no\nsuch\u001b[31m client"}"#);
        let want = "status 401, invalid_client: no\\nsuch\\u{1b}[31m client".to_owned();
        assert_eq!(refused, Err(TokenError::Refused(want)));
        assert_eq!(read(503, "<html>"), Err(TokenError::Unsound("status 503".to_owned())));
    }

    #[test]
    fn extensions_are_names_and_values() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            extensions("logicalCluster=lkc-1, identityPoolId=pool-2,"),
            Ok(vec![pair("logicalCluster", "lkc-1"), pair("identityPoolId", "pool-2")])
        );
        for wrong in ["a", "=b", "a1=b", "auth=x", "a=\u{1}"] {
            assert!(extensions(wrong).is_err(), "{wrong:?}");
        }
    }

    /// AWS, "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)", the example of Amazon S3.
    #[test]
    fn awss_own_example_of_a_signed_address() {
        let credentials = AwsCredentials {
            access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_key: Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
            session_token: None,
        };
        let host = "examplebucket.s3.amazonaws.com";
        let scope =
            AwsScope { region: "us-east-1", service: "s3", host, path: "/test.txt", payload: "UNSIGNED-PAYLOAD" };
        let now = WallTime(1_369_353_600 * 1_000_000_000);
        assert_eq!(
            presigned(&credentials, &scope, &[], Duration::from_secs(86_400), now),
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
             &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
             &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        );
    }

    /// AWS, "Examples of how to derive a signing key for Signature Version 4".
    #[test]
    fn awss_own_example_of_a_signing_key() {
        let secret = Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
        let key = signing_key(&secret, "20150830", "us-east-1", "iam");
        assert_eq!(hex(&key), "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
    }

    #[test]
    fn a_token_for_msk_is_a_signed_address() {
        let credentials = AwsCredentials {
            access_key: "AKID".to_owned(),
            secret_key: Secret::new("secret"),
            session_token: Some(Secret::new("se/ss")),
        };
        let token = msk_token(&credentials, "eu-west-1", NOW);
        assert_eq!(token.lifetime, Duration::from_secs(900));
        let url = URL_SAFE_NO_PAD.decode(token.value.expose()).expect("base64");
        let url = String::from_utf8(url).expect("an address");
        let begin = "https://kafka.eu-west-1.amazonaws.com/?Action=kafka-cluster%3AConnect&X-Amz-Algorithm=AWS4-HMAC-SHA256\
                     &X-Amz-Credential=AKID%2F20231114%2Feu-west-1%2Fkafka-cluster%2Faws4_request&X-Amz-Date=20231114T221320Z\
                     &X-Amz-Expires=900&X-Amz-Security-Token=se%2Fss&X-Amz-SignedHeaders=host&X-Amz-Signature=";
        assert!(url.starts_with(begin), "{url}");
        assert!(url.contains("&User-Agent=omb%2F") && !url.contains("secret"), "{url}");
    }

    #[test]
    fn regions_stand_in_names() {
        let region = |servers| region_of(servers);
        assert_eq!(region("b-1.demo.abc.c2.kafka.us-east-1.amazonaws.com:9098,x:1"), Some("us-east-1"));
        assert_eq!(region("SASL_SSL://boot-x.c1.kafka-serverless.eu-west-1.amazonaws.com:9098"), Some("eu-west-1"));
        assert_eq!(region("broker:9098"), None);
        assert_eq!(region("kafka.evil/.amazonaws.com:1"), None);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(status in any::<u16>(), body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_answer(status, &body, "c", NOW);
        }

        #[test]
        fn no_time_makes_it_panic(now in any::<u64>()) {
            prop_assert_eq!(amz_date(WallTime(now)).1.len(), 16);
        }
    }
}
