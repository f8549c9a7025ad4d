package sqs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	smithy "github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"muster.dev/muster/internal/fleet"
)

// kinds are the error codes of SQS, STS and CloudWatch that mean something to
// the caller: "Common Errors" and the errors of each action in the Amazon SQS
// API Reference. Every other is ErrUnavailable.
var kinds = map[string]error{
	"QueueDoesNotExist": fleet.ErrNotFound, "NonExistentQueue": fleet.ErrNotFound, "InvalidAddress": fleet.ErrNotFound,

	"AccessDenied": fleet.ErrDenied, "AccessDeniedException": fleet.ErrDenied, "NotAuthorized": fleet.ErrDenied, "AuthFailure": fleet.ErrDenied,
	"InvalidClientTokenId": fleet.ErrDenied, "InvalidAccessKeyId": fleet.ErrDenied, "UnrecognizedClientException": fleet.ErrDenied,
	"SignatureDoesNotMatch": fleet.ErrDenied, "InvalidSignatureException": fleet.ErrDenied, "IncompleteSignature": fleet.ErrDenied,
	"MissingAuthenticationToken": fleet.ErrDenied, "MissingAuthenticationTokenException": fleet.ErrDenied,
	"ExpiredToken": fleet.ErrDenied, "ExpiredTokenException": fleet.ErrDenied, "RequestExpired": fleet.ErrDenied, "OptInRequired": fleet.ErrDenied,
	"InvalidSecurity": fleet.ErrDenied, "KmsAccessDenied": fleet.ErrDenied,

	"MessageNotInflight": fleet.ErrFenced, "ReceiptHandleIsInvalid": fleet.ErrFenced, "InvalidIdFormat": fleet.ErrFenced,

	"OverLimit": fleet.ErrFull,

	"InvalidParameterValue": fleet.ErrInvalid, "InvalidMessageContents": fleet.ErrInvalid, "MissingParameter": fleet.ErrInvalid, "UnsupportedOperation": fleet.ErrInvalid,
}

// refusal is an error that a service answered with.
type refusal struct {
	code, message string
	kind          error
}

func (r *refusal) Error() string {
	if r.message == "" {
		return r.code + ": " + r.kind.Error()
	}
	return r.code + ": " + r.message + ": " + r.kind.Error()
}

func (r *refusal) Unwrap() error { return r.kind }

// staleKeys says whether other credentials could help, in contrast to other
// permissions.
func staleKeys(err error) bool {
	var r *refusal
	return errors.As(err, &r) && errors.Is(r.kind, fleet.ErrDenied) && !strings.HasPrefix(r.code, "AccessDenied")
}

// refused makes a refusal of a code and its text. Texts about signatures are
// left out, since the service shows what was signed, a session token with it;
// so are those of fenced calls, which repeat the receipt handle.
func refused(code, message string, status int) *refusal {
	code = strings.TrimPrefix(code, "AWS.SimpleQueueService.")
	kind, known := kinds[code]
	switch {
	case code == "InvalidParameterValue" && strings.Contains(message, "ReceiptHandle"):
		kind = fleet.ErrFenced
	case !known && (status == http.StatusUnauthorized || status == http.StatusForbidden):
		kind = fleet.ErrDenied
	case !known:
		kind = fleet.ErrUnavailable
	}
	if strings.Contains(code, "Signature") || errors.Is(kind, fleet.ErrFenced) {
		message = ""
	}
	return &refusal{code, clip(strings.TrimSuffix(message, ".")), kind}
}

// clip bounds a text of somebody else's and takes its control characters out.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if r := []rune(s); len(r) > 300 {
		return string(r[:300]) + "…"
	}
	return s
}

// told says what an error of the SDK is to the caller, without the operation
// and the caller's own end. The SDK's error is not wrapped: its text is its
// own, and may hold what is not to be shown.
func told(err error) error {
	var own *refusal
	if errors.As(err, &own) {
		return err
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		status := 0
		var response *smithyhttp.ResponseError
		if errors.As(err, &response) {
			status = response.HTTPStatusCode()
		}
		return refused(api.ErrorCode(), api.ErrorMessage(), status)
	}
	for _, kind := range []error{fleet.ErrDenied, fleet.ErrInvalid, fleet.ErrNotFound, fleet.ErrFenced} {
		if errors.Is(err, kind) {
			return err
		}
	}
	return fmt.Errorf("%s: %w", cause(err), fleet.ErrUnavailable)
}

// cause is the part of a transport error that tells something.
func cause(err error) string {
	var request *url.Error
	var network *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.Is(err, context.Canceled):
		return "closed"
	case errors.As(err, &network):
		return clip(network.Error())
	case errors.As(err, &request):
		return clip(request.Err.Error())
	}
	return clip(err.Error())
}
