//! Every reason for which a token is refused: a stable word, and the code that the client is told.
//!
//! One invariant: a word never changes its meaning. None of them says anything of a token's content.

use schemas::problem::Code;

use crate::token::BadToken;

macro_rules! reasons {
    ($($(#[$doc:meta])* $const:ident = $detail:literal, $code:ident;)*) => {
        $($(#[$doc])* pub const $const: BadToken = BadToken { code: Code::$code, detail: $detail };)*

        /// All of them.
        pub const ALL: &[BadToken] = &[$($const),*];
    };
}

reasons! {
    /// Longer than 16 KiB.
    TOO_LARGE = "too_large", TOKEN_INVALID;
    /// Not three parts with dots between them, or a part has no base64url in its canonical spelling.
    MALFORMED = "not_compact_jws", TOKEN_INVALID;
    /// The header is no JSON object.
    HEADER_JSON = "header_json", TOKEN_INVALID;
    /// An object in the header has a member twice.
    HEADER_DUPLICATE = "header_duplicate", TOKEN_INVALID;
    /// The claims are no JSON object.
    CLAIMS_JSON = "claims_json", TOKEN_INVALID;
    /// An object in the claims has a member twice.
    CLAIMS_DUPLICATE = "claims_duplicate", TOKEN_INVALID;
    /// No `alg`, or it is no string.
    ALG_MISSING = "alg_missing", TOKEN_INVALID;
    /// `alg` is `none`, in any spelling.
    ALG_NONE = "alg_none", TOKEN_INVALID;
    /// `alg` is one with a shared secret.
    ALG_SYMMETRIC = "alg_symmetric", TOKEN_INVALID;
    /// `alg` is not known.
    ALG_UNKNOWN = "alg_unknown", TOKEN_INVALID;
    /// The issuer is not configured for this `alg`.
    ALG_NOT_ALLOWED = "alg_not_allowed", TOKEN_INVALID;
    /// The header brings or names its own key: `jwk`, `jku`, `x5c` or `x5u`.
    KEY_IN_HEADER = "key_in_header", TOKEN_INVALID;
    /// `crit` is there: no extension is known.
    CRIT = "crit_unknown", TOKEN_INVALID;
    /// `b64` is there: the payload of a token is always base64url.
    B64 = "b64_unsupported", TOKEN_INVALID;
    /// `enc` or `zip` is there, or `cty` says that a token is in the token.
    NESTED = "nested_unsupported", TOKEN_INVALID;
    /// `typ` is neither `JWT` nor `at+jwt`.
    TYP = "typ_not_accepted", TOKEN_INVALID;
    /// `kid` is no string, empty, or longer than 256 bytes.
    KID_MALFORMED = "kid_malformed", TOKEN_INVALID;
    /// No `iss`, or it is no string.
    ISS_MISSING = "iss_missing", TOKEN_INVALID;
    /// The issuer is not configured.
    ISS_UNKNOWN = "iss_unknown", TOKEN_INVALID;
    /// The issuer's keys cannot be had now.
    KEYS_UNAVAILABLE = "keys_unavailable", KEYS_UNAVAILABLE;
    /// The issuer has no key of that `kid`.
    KID_UNKNOWN = "kid_unknown", TOKEN_INVALID;
    /// No `kid`, and the issuer does not have exactly one key for this `alg`.
    KID_REQUIRED = "kid_required", TOKEN_INVALID;
    /// Several of the issuer's keys have that `kid` and fit.
    KID_AMBIGUOUS = "kid_ambiguous", TOKEN_INVALID;
    /// The key is of another type than the `alg` needs.
    KEY_TYPE = "key_type_mismatch", TOKEN_INVALID;
    /// The key names another `alg`.
    KEY_ALG = "key_alg_mismatch", TOKEN_INVALID;
    /// The key is on another curve than the `alg` needs.
    KEY_CURVE = "key_curve_mismatch", TOKEN_INVALID;
    /// An RSA key of fewer than 2048 bits.
    KEY_SHORT = "key_too_short", TOKEN_INVALID;
    /// The key's `use` or `key_ops` is not for verifying signatures.
    KEY_USE = "key_use", TOKEN_INVALID;
    /// The key cannot be read, is symmetric, or is published with its private part.
    KEY_MALFORMED = "key_malformed", TOKEN_INVALID;
    /// The signature is not by that key.
    SIGNATURE = "signature_mismatch", TOKEN_INVALID;
    /// No `aud`, or it is neither a string nor strings.
    AUD_MISSING = "aud_missing", TOKEN_INVALID;
    /// None of the configured audiences is in `aud`.
    AUD_MISMATCH = "aud_mismatch", TOKEN_INVALID;
    /// No `exp`, or it is no time.
    EXP_MISSING = "exp_missing", TOKEN_INVALID;
    /// An operator revoked it, or its subject, tenant or issuer.
    REVOKED = "revoked", TOKEN_REVOKED;
    /// Whether it was revoked is not known: the control topic was not read yet, or too long ago.
    CONTROL_STALE = "control_stale", CONTROL_STALE;
    /// `exp` has come.
    EXPIRED = "expired", TOKEN_EXPIRED;
    /// `nbf` is no time.
    NBF_MALFORMED = "nbf_malformed", TOKEN_INVALID;
    /// `nbf` lies ahead, by more than the leeway.
    NOT_YET = "not_yet_valid", TOKEN_INVALID;
    /// `iat` is no time.
    IAT_MALFORMED = "iat_malformed", TOKEN_INVALID;
    /// `iat` lies ahead, by more than the leeway.
    IAT_FUTURE = "issued_in_the_future", TOKEN_INVALID;
    /// No `sub`, or it is no string, empty, or longer than 1024 bytes.
    SUB_MISSING = "sub_missing", TOKEN_INVALID;
    /// `jti` is no string, or longer than 1024 bytes.
    JTI_MALFORMED = "jti_malformed", TOKEN_INVALID;
    /// The configured tenant claim is missing or no string.
    TENANT_MISSING = "tenant_missing", TOKEN_INVALID;
    /// The tenant claim's value is no tenant.
    TENANT_MALFORMED = "tenant_malformed", TOKEN_INVALID;
    /// The issuer may not assert this tenant.
    TENANT_NOT_ALLOWED = "tenant_not_allowed", TOKEN_INVALID;
    /// The scopes are neither text nor texts.
    SCOPE_MALFORMED = "scope_malformed", TOKEN_INVALID;
}
