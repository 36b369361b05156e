//! Tokens that are refused: what is wrong with each, and by which reason it is refused.

use aws_lc_rs::hmac;

use super::*;

/// What is wrong, the token, the refusal.
pub(super) type Bad = (&'static str, String, BadToken);

fn bad_header(name: &'static str, member: &str, value: Value, refused: BadToken) -> Bad {
    let header = with(header("EdDSA", "ed"), member, value);
    (name, pairs().ed.token(&header, &claims(ISSUER)), refused)
}

fn bad_claim(name: &'static str, member: &str, value: Value, refused: BadToken) -> Bad {
    let claims = with(claims(ISSUER), member, value);
    (name, pairs().ed.token(&header("EdDSA", "ed"), &claims), refused)
}

fn bad_key(name: &'static str, pair: &Pair, alg: &str, kid: &str, refused: BadToken) -> Bad {
    (name, pair.token(&header(alg, kid), &claims(ISSUER)), refused)
}

/// A token that is signed with a shared secret.
fn symmetric(alg: &str, kid: &str, secret: &[u8]) -> String {
    let message = format!(
        "{}.{}",
        encode(header(alg, kid).to_string().as_bytes()),
        encode(claims(ISSUER).to_string().as_bytes())
    );
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", encode(tag.as_ref()))
}

pub(super) fn by_shape() -> Vec<Bad> {
    let ed = &pairs().ed;
    let good = ed.token(&header("EdDSA", "ed"), &claims(ISSUER));
    let parts: Vec<&str> = good.split('.').collect();
    let [head, body, signature] = [parts[0], parts[1], parts[2]];
    let text = claims(ISSUER).to_string();
    let large = with(claims(ISSUER), "x", "x".repeat(TOKEN_BYTES_MAX).into());
    let json_form = json!({"payload": body, "protected": head, "signature": signature}).to_string();
    vec![
        ("empty", String::new(), reason::MALFORMED),
        ("one part", head.to_owned(), reason::MALFORMED),
        ("two parts", format!("{head}.{body}"), reason::MALFORMED),
        (
            "five parts, a JWE",
            format!("{head}.{body}.{signature}.{body}.{body}"),
            reason::MALFORMED,
        ),
        ("the JSON form of a JWS", json_form, reason::MALFORMED),
        (
            "padded base64",
            format!("{head}=.{body}.{signature}"),
            reason::MALFORMED,
        ),
        (
            "standard base64",
            format!("{head}.+/{body}.{signature}"),
            reason::MALFORMED,
        ),
        ("white space around it", format!(" {good}"), reason::MALFORMED),
        ("a scheme in front", format!("Bearer {good}"), reason::MALFORMED),
        (
            "longer than allowed",
            ed.token(&header("EdDSA", "ed"), &large),
            reason::TOO_LARGE,
        ),
        ("no header", format!(".{body}.{signature}"), reason::HEADER_JSON),
        (
            "a header that is a list",
            ed.token_of("[]", &text),
            reason::HEADER_JSON,
        ),
        (
            "a header with something behind it",
            ed.token_of(r#"{"alg":"EdDSA"}{}"#, &text),
            reason::HEADER_JSON,
        ),
        (
            "alg twice, the second in another spelling",
            ed.token_of(r#"{"alg":"EdDSA","kid":"ed","\u0061lg":"none"}"#, &text),
            reason::HEADER_DUPLICATE,
        ),
        (
            "claims that are text",
            ed.token_of(r#"{"alg":"EdDSA","kid":"ed"}"#, "\"x\""),
            reason::CLAIMS_JSON,
        ),
        ("no claims", format!("{head}..{signature}"), reason::CLAIMS_JSON),
        (
            "a tenant twice",
            ed.token_of(
                r#"{"alg":"EdDSA","kid":"ed"}"#,
                &text.replacen(r#""tenant":"north""#, r#""tenant":"south","tenant":"north""#, 1),
            ),
            reason::CLAIMS_DUPLICATE,
        ),
        ("no signature", format!("{head}.{body}."), reason::SIGNATURE),
        (
            "a cut signature",
            format!("{head}.{body}.{}", signature.chars().take(80).collect::<String>()),
            reason::SIGNATURE,
        ),
        (
            "a signature that is no base64url",
            format!("{head}.{body}.{signature}=="),
            reason::SIGNATURE,
        ),
        (
            "claims exchanged under the signature",
            format!(
                "{head}.{}.{signature}",
                encode(
                    with(claims(ISSUER), "tenant", "south".into())
                        .to_string()
                        .as_bytes()
                )
            ),
            reason::SIGNATURE,
        ),
        (
            "a header exchanged under the signature",
            format!("{}.{body}.{signature}", encode(br#"{"alg":"EdDSA","kid":"ed"}"#)),
            reason::SIGNATURE,
        ),
    ]
}

pub(super) fn by_header() -> Vec<Bad> {
    let none = format!(
        "{}.{}.",
        encode(br#"{"alg":"none"}"#),
        encode(claims(ISSUER).to_string().as_bytes())
    );
    let (_, public) = match &pairs().rsa {
        Pair::Rsa(pair) => (
            (),
            aws_lc_rs::signature::KeyPair::public_key(pair).as_ref().to_vec(),
        ),
        _ => panic!("an RSA key"),
    };
    vec![
        ("alg none, no signature", none, reason::ALG_NONE),
        bad_header(
            "alg none in another case, signed",
            "alg",
            json!("nOnE"),
            reason::ALG_NONE,
        ),
        bad_header("no alg", "alg", Value::Null, reason::ALG_MISSING),
        bad_header(
            "an alg that is no text",
            "alg",
            json!(["EdDSA"]),
            reason::ALG_MISSING,
        ),
        bad_header(
            "an alg that nobody knows",
            "alg",
            json!("ES256K"),
            reason::ALG_UNKNOWN,
        ),
        bad_header(
            "an alg in another case",
            "alg",
            json!("eddsa"),
            reason::ALG_UNKNOWN,
        ),
        bad_header("an encryption alg", "alg", json!("RSA-OAEP"), reason::ALG_UNKNOWN),
        (
            "HS256 with the RSA public key as secret",
            symmetric("HS256", "rsa", &public),
            reason::ALG_SYMMETRIC,
        ),
        (
            "HS256 with a secret of the set",
            symmetric("HS256", "secret", b"0123456789abcdef0123456789abcdef"),
            reason::ALG_SYMMETRIC,
        ),
        ("HS512", symmetric("HS512", "ed", b""), reason::ALG_SYMMETRIC),
        bad_key(
            "an alg that is not configured",
            &pairs().rsa,
            "RS512",
            "rsa",
            reason::ALG_NOT_ALLOWED,
        ),
        bad_header(
            "a key in the header",
            "jwk",
            pairs().stranger.jwk(json!({})),
            reason::KEY_IN_HEADER,
        ),
        bad_header(
            "the address of a key",
            "jku",
            json!("https://evil.example/jwks"),
            reason::KEY_IN_HEADER,
        ),
        bad_header(
            "the address of a certificate",
            "x5u",
            json!("https://evil.example/x"),
            reason::KEY_IN_HEADER,
        ),
        bad_header("a certificate", "x5c", json!(["MIIB"]), reason::KEY_IN_HEADER),
        bad_header("a critical extension", "crit", json!(["exp"]), reason::CRIT),
        bad_header(
            "an empty list of critical extensions",
            "crit",
            json!([]),
            reason::CRIT,
        ),
        bad_header("a payload that is not encoded", "b64", json!(false), reason::B64),
        bad_header("a token in the token", "cty", json!("JWT"), reason::NESTED),
        bad_header("encrypted", "enc", json!("A256GCM"), reason::NESTED),
        bad_header("compressed", "zip", json!("DEF"), reason::NESTED),
        bad_header("another kind of token", "typ", json!("logout+jwt"), reason::TYP),
        bad_header("a typ that is no text", "typ", json!(1), reason::TYP),
        bad_header(
            "a kid that is no text",
            "kid",
            json!({"ed": 1}),
            reason::KID_MALFORMED,
        ),
        bad_header("an empty kid", "kid", json!(""), reason::KID_MALFORMED),
        bad_header(
            "a very long kid",
            "kid",
            "k".repeat(257).into(),
            reason::KID_MALFORMED,
        ),
    ]
}

pub(super) fn by_key() -> Vec<Bad> {
    let pairs = pairs();
    vec![
        bad_key(
            "a kid that the issuer does not have",
            &pairs.ed,
            "EdDSA",
            "other",
            reason::KID_UNKNOWN,
        ),
        bad_key(
            "a kid that is a path",
            &pairs.ed,
            "EdDSA",
            "../../dev/null",
            reason::KID_UNKNOWN,
        ),
        bad_header(
            "no kid where several keys fit",
            "kid",
            Value::Null,
            reason::KID_REQUIRED,
        ),
        bad_key(
            "a kid of two keys",
            &pairs.ed,
            "EdDSA",
            "twin",
            reason::KID_AMBIGUOUS,
        ),
        bad_key(
            "signed by a stranger",
            &pairs.stranger,
            "EdDSA",
            "ed",
            reason::SIGNATURE,
        ),
        bad_key(
            "PS256 said, RS256 done",
            &pairs.rsa,
            "RS256",
            "only-ps256",
            reason::KEY_ALG,
        ),
        bad_key(
            "an RSA key for ES256",
            &pairs.p256,
            "ES256",
            "rsa",
            reason::KEY_TYPE,
        ),
        bad_key(
            "an elliptic key for RS256",
            &pairs.rsa,
            "RS256",
            "p256",
            reason::KEY_TYPE,
        ),
        bad_key(
            "an Edwards key for ES256",
            &pairs.p256,
            "ES256",
            "twin",
            reason::KEY_TYPE,
        ),
        bad_key("P-384 for ES256", &pairs.p384, "ES256", "p384", reason::KEY_CURVE),
        bad_key("P-256 for ES512", &pairs.p256, "ES512", "p256", reason::KEY_CURVE),
        bad_key(
            "a curve of coins",
            &pairs.p256,
            "ES256",
            "k256",
            reason::KEY_CURVE,
        ),
        bad_key("Ed448", &pairs.ed, "EdDSA", "ed448", reason::KEY_CURVE),
        bad_key(
            "an RSA key of 1024 bits",
            &pairs.rsa,
            "RS256",
            "short",
            reason::KEY_SHORT,
        ),
        bad_key(
            "a key for encryption",
            &pairs.rsa,
            "RS256",
            "encryption",
            reason::KEY_USE,
        ),
        bad_key(
            "a key for other operations",
            &pairs.rsa,
            "RS256",
            "operations",
            reason::KEY_USE,
        ),
        bad_key(
            "a key with its private part",
            &pairs.rsa,
            "RS256",
            "published",
            reason::KEY_MALFORMED,
        ),
        bad_key(
            "a shared secret",
            &pairs.rsa,
            "RS256",
            "secret",
            reason::KEY_MALFORMED,
        ),
        bad_key(
            "a key without numbers",
            &pairs.rsa,
            "RS256",
            "bare",
            reason::KEY_MALFORMED,
        ),
        bad_key(
            "a key of an unknown type",
            &pairs.rsa,
            "RS256",
            "unknown",
            reason::KEY_TYPE,
        ),
        bad_key(
            "an even modulus",
            &pairs.rsa,
            "RS256",
            "even",
            reason::KEY_MALFORMED,
        ),
        bad_key(
            "the exponent 1",
            &pairs.rsa,
            "RS256",
            "exponent-1",
            reason::KEY_MALFORMED,
        ),
        bad_key(
            "a coordinate that is too short",
            &pairs.p256,
            "ES256",
            "cut",
            reason::KEY_MALFORMED,
        ),
        bad_key(
            "a point that is not on the curve",
            &pairs.p256,
            "ES256",
            "off-curve",
            reason::SIGNATURE,
        ),
    ]
}

pub(super) fn by_claim() -> Vec<Bad> {
    vec![
        bad_claim("no iss", "iss", Value::Null, reason::ISS_MISSING),
        bad_claim(
            "an iss that is no text",
            "iss",
            json!([ISSUER]),
            reason::ISS_MISSING,
        ),
        bad_claim(
            "another iss",
            "iss",
            json!("https://evil.example"),
            reason::ISS_UNKNOWN,
        ),
        bad_claim(
            "an iss with a slash more",
            "iss",
            json!("https://id.example/"),
            reason::ISS_UNKNOWN,
        ),
        bad_claim("no aud", "aud", Value::Null, reason::AUD_MISSING),
        bad_claim("an aud that is a number", "aud", json!(1), reason::AUD_MISSING),
        bad_claim(
            "an aud with a number among texts",
            "aud",
            json!(["tidewire", 1]),
            reason::AUD_MISSING,
        ),
        bad_claim(
            "for somebody else",
            "aud",
            json!("tidewire-admin"),
            reason::AUD_MISMATCH,
        ),
        bad_claim("for nobody", "aud", json!([]), reason::AUD_MISMATCH),
        bad_claim("no exp", "exp", Value::Null, reason::EXP_MISSING),
        bad_claim(
            "an exp that is text",
            "exp",
            json!("1800000600"),
            reason::EXP_MISSING,
        ),
        bad_claim("an exp before all times", "exp", json!(-1), reason::EXP_MISSING),
        bad_claim(
            "an exp beyond all times",
            "exp",
            json!(u64::MAX),
            reason::EXP_MISSING,
        ),
        bad_claim(
            "an exp after the year 9999",
            "exp",
            json!(253_402_300_800_u64),
            reason::EXP_MISSING,
        ),
        bad_claim("expired an hour ago", "exp", json!(NOW - 3600), reason::EXPIRED),
        bad_claim("expires now", "exp", json!(NOW), reason::EXPIRED),
        bad_claim("valid in a minute", "nbf", json!(NOW + 60), reason::NOT_YET),
        bad_claim("an nbf that is text", "nbf", json!("now"), reason::NBF_MALFORMED),
        bad_claim("issued in a minute", "iat", json!(NOW + 60), reason::IAT_FUTURE),
        bad_claim("an iat that is a list", "iat", json!([]), reason::IAT_MALFORMED),
        bad_claim("no sub", "sub", Value::Null, reason::SUB_MISSING),
        bad_claim("an empty sub", "sub", json!(""), reason::SUB_MISSING),
        bad_claim("a sub that is a number", "sub", json!(7), reason::SUB_MISSING),
        bad_claim(
            "a very long sub",
            "sub",
            "s".repeat(1025).into(),
            reason::SUB_MISSING,
        ),
        bad_claim("a jti that is a number", "jti", json!(7), reason::JTI_MALFORMED),
        bad_claim("no tenant", "tenant", Value::Null, reason::TENANT_MISSING),
        bad_claim(
            "two tenants",
            "tenant",
            json!(["north", "south"]),
            reason::TENANT_MISSING,
        ),
        bad_claim("an empty tenant", "tenant", json!(""), reason::TENANT_MALFORMED),
        bad_claim(
            "a tenant with a slash",
            "tenant",
            json!("north/../south"),
            reason::TENANT_MALFORMED,
        ),
        bad_claim(
            "a tenant of somebody else",
            "tenant",
            json!("west"),
            reason::TENANT_NOT_ALLOWED,
        ),
        bad_claim(
            "a tenant in another case",
            "tenant",
            json!("North"),
            reason::TENANT_NOT_ALLOWED,
        ),
        bad_claim(
            "scopes that are an object",
            "scope",
            json!({}),
            reason::SCOPE_MALFORMED,
        ),
        bad_claim(
            "scopes with a number among them",
            "scope",
            json!(["a", 1]),
            reason::SCOPE_MALFORMED,
        ),
    ]
}
