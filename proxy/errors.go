package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/proxy/access"
	"github.com/entrepot/entrepot/upstream"
)

// The error codes of distribution-spec 1.1 that a mirror has use for. The last two are not among them; registries use them
// for what is no fault of the request.
const (
	codeBlobUnknown     = "BLOB_UNKNOWN"
	codeDigestInvalid   = "DIGEST_INVALID"
	codeManifestUnknown = "MANIFEST_UNKNOWN"
	codeNameInvalid     = "NAME_INVALID"
	codeNameUnknown     = "NAME_UNKNOWN"
	codeUnauthorized    = "UNAUTHORIZED"
	codeDenied          = "DENIED"
	codeUnsupported     = "UNSUPPORTED"
	codeTooMany         = "TOOMANYREQUESTS"
	codeSizeInvalid     = "SIZE_INVALID"
	codeUnavailable     = "UNAVAILABLE"
	codeUnknown         = "UNKNOWN"
)

// apiError is an error as clients see it.
type apiError struct {
	status     int
	code       string
	message    string
	retryAfter time.Duration // 0: nothing is said
	challenge  string        // how to say who one is; "": that would not help
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

// write answers with the error, as distribution-spec 1.1 wants it ("Error Codes").
func (e *apiError) write(w http.ResponseWriter) {
	type entry struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	body, err := json.Marshal(map[string][]entry{"errors": {{e.code, e.message}}})
	if err != nil {
		panic(err) // strings always marshal
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	if e.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((e.retryAfter+time.Second-1)/time.Second)))
	}
	if e.challenge != "" {
		h.Set("Www-Authenticate", e.challenge)
	}
	w.WriteHeader(e.status)
	_, _ = w.Write(body) // a client that is gone needs no answer
}

// asAPIError tells a client what went wrong while it asked for something of that kind.
//
// Upstream's definite answers are passed on with its own words. Everything else is 502 or 503, so that no client takes an
// outage for "there is no such image"; clients that have another mirror, or the registry itself, go there at once. A 429
// becomes a 503 too: containerd would repeat it without a pause, podman would wait half a minute.
func asAPIError(err error, k kind) *apiError {
	var own *apiError
	var refused *access.Refusal
	var up *upstream.Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &refused):
		return fromRefusal(refused)
	case errors.Is(err, access.ErrBusy):
		return &apiError{status: http.StatusServiceUnavailable, code: codeUnavailable, message: err.Error(), retryAfter: time.Second}
	case errors.Is(err, cache.ErrUnavailable):
		return &apiError{status: http.StatusServiceUnavailable, code: codeUnavailable, message: err.Error(), retryAfter: outagePause}
	case errors.As(err, &up):
		return fromUpstream(up, k)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, cache.ErrClosed):
		return &apiError{status: http.StatusServiceUnavailable, code: codeUnavailable, message: "the request was given up"}
	}
	return &apiError{status: http.StatusBadGateway, code: codeUnavailable, message: err.Error()}
}

// outagePause is what a client is asked to wait before it tries again during an outage.
const outagePause = 10 * time.Second

func fromUpstream(up *upstream.Error, k kind) *apiError {
	e := &apiError{status: up.Status, code: up.Code, message: up.Message, retryAfter: up.RetryAfter}
	if e.message == "" || up.Err != nil { // which says more: that it is entrepot's own credentials that are refused
		e.message = up.Error()
	}
	switch {
	case up.Answered():
		if e.code == "" {
			e.code = defaultCode(up.Status, k)
		}
	case up.Status == http.StatusTooManyRequests:
		e.status, e.code = http.StatusServiceUnavailable, codeTooMany
		e.message = "upstream limits the rate of requests: " + e.message
	case up.Status == 0:
		e.status, e.code, e.message = http.StatusServiceUnavailable, codeUnavailable, up.Error()
	default:
		e.status = http.StatusBadGateway
		if e.code == "" || up.Status == http.StatusUnauthorized || up.Status == http.StatusForbidden {
			e.code = codeUnavailable // its own would speak of the client
		}
		e.message = "upstream failed: " + e.message
	}
	if e.status == http.StatusServiceUnavailable && e.retryAfter == 0 {
		e.retryAfter = outagePause
	}
	return e
}

func defaultCode(status int, k kind) string {
	switch status {
	case http.StatusUnauthorized:
		return codeUnauthorized
	case http.StatusForbidden:
		return codeDenied
	case http.StatusNotFound:
		switch k {
		case kindManifest:
			return codeManifestUnknown
		case kindBlob:
			return codeBlobUnknown
		case kindTags:
			return codeNameUnknown
		}
	}
	return codeUnsupported
}
