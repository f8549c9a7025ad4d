package servers

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/xml"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// session is a pair of keys that AssumeRole gave out.
type session struct{ secret, token string }

var authorization = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([^/,]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, SignedHeaders=([^,]+), Signature=([0-9a-f]{64})$`)

// signed checks the signature of a call by making it again with the key that
// it names: "Signature Version 4 signing process" in the IAM User Guide. The
// codes are those of "Common Errors" in the API Reference, and
// SignatureDoesNotMatch, which the guide's "Troubleshoot Signature Version 4"
// shows.
func (s *SQS) signed(r *http.Request, body []byte, service string) error {
	forbid := func(code, message string) error { return &apiError{http.StatusForbidden, code, message} }
	m := authorization.FindStringSubmatch(r.Header.Get("Authorization"))
	if m == nil {
		return forbid("MissingAuthenticationToken", "Request is missing Authentication Token")
	}
	key, day, region, named, names := m[1], m[2], m[3], m[4], m[5]
	keys := aws.Credentials{AccessKeyID: key, SecretAccessKey: SQSSecretKey}
	if key != SQSAccessKey {
		s.mu.Lock()
		given, ok := s.sessions[key]
		s.mu.Unlock()
		if !ok || subtle.ConstantTimeCompare([]byte(given.token), []byte(r.Header.Get("X-Amz-Security-Token"))) != 1 {
			return forbid("InvalidClientTokenId", "The security token included in the request is invalid.")
		}
		keys.SecretAccessKey, keys.SessionToken = given.secret, given.token
	}
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil || !strings.HasPrefix(r.Header.Get("X-Amz-Date"), day) || time.Since(at).Abs() > 15*time.Minute {
		return forbid("SignatureDoesNotMatch", "Signature expired")
	}
	if region != SQSRegion || named != service {
		return forbid("SignatureDoesNotMatch", "Credential should be scoped to a valid region and service.")
	}
	again, err := http.NewRequestWithContext(r.Context(), r.Method, s.Endpoint()+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return forbid("IncompleteSignature", err.Error())
	}
	again.Host = r.Host
	if !slices.Contains(strings.Split(names, ";"), "content-length") {
		again.ContentLength = 0 // the signer signs it where it is known; clients need not
	}
	for name := range strings.SplitSeq(names, ";") {
		if v := r.Header.Values(name); len(v) > 0 {
			again.Header[http.CanonicalHeaderKey(name)] = v
		}
	}
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(r.Context(), keys, again, hex.EncodeToString(sum[:]), service, region, at); err != nil {
		return forbid("IncompleteSignature", err.Error())
	}
	if subtle.ConstantTimeCompare([]byte(again.Header.Get("Authorization")), []byte(r.Header.Get("Authorization"))) != 1 {
		// The service shows what it signed, the caller's token with it.
		return forbid("SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. The Canonical String for this request should have been x-amz-security-token:"+r.Header.Get("X-Amz-Security-Token"))
	}
	return nil
}

// sts answers AssumeRole: "AWS Security Token Service API Reference". The role
// is SQSRole, its external ID "muster".
func (s *SQS) sts(w http.ResponseWriter, r *http.Request, body []byte) {
	in, err := url.ParseQuery(string(body))
	if err == nil {
		err = s.signed(r, body, "sts")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[in.Get("Action")]++
	w.Header().Set("Content-Type", "text/xml")
	if err != nil || in.Get("Action") != "AssumeRole" || in.Get("RoleArn") != SQSRole || in.Get("ExternalId") != "muster" {
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not authorized to perform: sts:AssumeRole</Message></Error></ErrorResponse>`))
		return
	}
	type credentials struct {
		AccessKeyID                               string `xml:"AccessKeyId"`
		SecretAccessKey, SessionToken, Expiration string
	}
	given := credentials{"ASIA" + strings.ToUpper(strings.ReplaceAll(uuid(), "-", "")[:16]), uuid(), uuid(), time.Now().Add(time.Hour).UTC().Format(time.RFC3339)}
	s.sessions[given.AccessKeyID] = session{given.SecretAccessKey, given.SessionToken}
	_ = xml.NewEncoder(w).Encode(struct { // a caller that is gone is its own affair
		XMLName     xml.Name    `xml:"AssumeRoleResponse"`
		Credentials credentials `xml:"AssumeRoleResult>Credentials"`
	}{Credentials: given})
}
