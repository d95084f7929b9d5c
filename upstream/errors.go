package upstream

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// ErrStalled is the cause of an Error when the bytes of a blob stopped coming.
var ErrStalled = errors.New("upstream stopped sending")

// ErrEnough is the error of OpenBlob for a further connection that no endpoint is to be strained for, or that those asked
// can't serve: it is no outage, and the connections that bring the blob already go on.
var ErrEnough = errors.New("no further connection for this blob")

var (
	errRangeless = errors.New("the range was ignored")

	errSlow   = errors.New("no complete answer within " + smallTimeout.String())
	errClosed = errors.New("registry is closed")

	// errRefused is the cause of an Error that is about our own login, which stands in the way of any answer.
	errRefused = errors.New("the registry refuses entrepot's credentials")

	// errCredentials stands for whatever goes wrong with them: the reason names files, and errors reach clients.
	errCredentials = errors.New("the credentials can't be read")
)

const (
	maxErrorBody  = 16 << 10 // read of a refusal; the specification's errors take some hundred bytes
	maxMessage    = 256      // kept of its message: a line of a log
	maxCode       = 64       // kept of its code; the longest of the specification has 21 letters
	maxCause      = 512      // printed of a cause, which may quote what a hostile host has sent
	maxRetryAfter = time.Hour
)

// Error says what went wrong with one request upstream.
type Error struct {
	Registry, Op  string        // the registry's name; what was asked, such as "GET manifest library/redis:7"
	Status        int           // 0 when no answer came
	Code, Message string        // the first entry of upstream's OCI error body, if it had one; printable and short
	RetryAfter    time.Duration // when upstream would like to be asked again; 0: it did not say, or at once; an hour at most
	Challenge     string        // of a 401 of the registry's own: what it asks of a client, as the value of a WWW-Authenticate header
	Err           error         // the cause, when no usable answer came

	// hearsay marks a status that is not the registry's word on what was asked: that of a token server that is out of
	// order, of the storage host that a redirect led to, or what is said of our own login, whoever asked for whatever.
	hearsay bool
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Registry + ": " + e.Op)
	if e.Status != 0 {
		b.WriteString(": " + strings.TrimSpace(strconv.Itoa(e.Status)+" "+http.StatusText(e.Status)))
	}
	for _, part := range []string{e.Code, e.Message} {
		if part != "" {
			b.WriteString(": " + part)
		}
	}
	if e.Err != nil {
		b.WriteString(": " + printable(e.Err.Error(), maxCause))
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Answered reports whether the error is upstream's definite answer: it was reached, understood, and said that the thing is
// not there (404, 410) or not for this user (401, 403, 451). Any other status speaks of the request, or of the state
// that something on the way is in, and not of what was asked for.
func (e *Error) Answered() bool {
	switch e.Status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone, http.StatusUnavailableForLegalReasons:
		return !e.hearsay
	}
	return false
}

// Outage reports whether the error speaks of the registry and not of what it was asked for: it could not be reached, went
// silent, or said that it can't serve now (5xx, 429).
func (e *Error) Outage() bool {
	return e.Status == 0 || e.Status >= http.StatusInternalServerError || e.Throttled()
}

// Throttled reports whether the error says that too much was asked (429).
func (e *Error) Throttled() bool { return e.Status == http.StatusTooManyRequests }

// headRefused reports whether an error says that what was asked by HEAD may still be had by GET. What a token server
// says of its own methods is not about that.
func headRefused(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && !e.hearsay && (e.Status == http.StatusMethodNotAllowed || e.Status == http.StatusNotImplemented)
}

// failed is the error of a question that got no usable answer.
func (r *Registry) failed(q question, err error) *Error {
	if known, ok := errors.AsType[*Error](err); ok {
		return known
	}
	e := &Error{Registry: r.name, Op: q.op, Err: bare(err)}
	if shut, ok := errors.AsType[*shutError](err); ok {
		e.RetryAfter = max(shut.next, time.Second)
	}
	return e
}

// unfit is the error of an answer whose status promised what the rest of it does not keep.
func (r *Registry) unfit(q question, resp *http.Response, format string, args ...any) *Error {
	return &Error{Registry: r.name, Op: q.op, Status: resp.StatusCode, Err: fmt.Errorf(format, args...)}
}

// refusal is the error that an answer of another status than the wanted one stands for, home being the origin that was
// asked. It reads the body and closes it.
func (r *Registry) refusal(q question, resp *http.Response, home origin) *Error {
	defer resp.Body.Close()
	e := &Error{Registry: r.name, Op: q.op, Status: resp.StatusCode}
	denied := e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
	switch {
	case q.traffic() == blobs:
		// A storage host knows signatures, not users: the registry itself had let this one in.
		e.hearsay = denied && originOf(resp.Request.URL) != home
	case q.kind == kindToken:
		// A token server says who may pull. That it has no such page, say, is no word on the image.
		e.hearsay = !denied
	}
	if e.Status == http.StatusUnauthorized && originOf(resp.Request.URL) == home {
		e.Challenge = passed(resp.Header.Values("WWW-Authenticate"))
	}
	if resp.StatusCode < 400 {
		e.Err = errors.New("not a status that answers this")
		return e
	}
	// A body that breaks off has nothing to say; the status stands.
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	e.Code, e.Message = parseErrorBody(body)
	e.RetryAfter = retryAfter(resp.Header, time.Now())
	return e
}

// parseErrorBody returns the first error of an OCI error document, or what token servers say in its place. Whatever does
// not look like either is ignored: the answer's status has been read already.
func parseErrorBody(body []byte) (code, message string) {
	var doc struct {
		Errors []struct{ Code, Message string }

		// Of OAuth 2.0:
		Error       string
		Description string `json:"error_description"`
		// Of Docker Hub:
		Details string
		Message string
	}
	// A member of another type than expected is skipped, and the rest still read.
	_ = json.Unmarshal(body, &doc)
	code, message = doc.Error, cmp.Or(doc.Description, doc.Details, doc.Message)
	if len(doc.Errors) > 0 {
		code, message = doc.Errors[0].Code, doc.Errors[0].Message
	}
	return printable(code, maxCode), printable(message, maxMessage)
}

// parseRetryAfter reads seconds or an HTTP date, one that is past meaning now.
func parseRetryAfter(header string, now time.Time) (d time.Duration, stated bool) {
	header = strings.TrimSpace(header)
	if seconds, err := strconv.ParseUint(header, 10, 64); err == nil {
		return time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second, true
	}
	if at, err := http.ParseTime(header); err == nil {
		return min(max(at.Sub(now), 0), maxRetryAfter), true
	}
	return 0, false
}

// printable returns at most limit bytes of s as one line: neither control characters, which forge log lines, nor
// invisible ones, which reorder them.
func printable(s string, limit int) string {
	var b strings.Builder
	for _, c := range s {
		if b.Len()+len(string(c)) > limit {
			b.WriteString("…")
			break
		}
		if !unicode.IsPrint(c) {
			c = ' '
		}
		b.WriteRune(c)
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// bare takes the URL out of an error, which net/http and net/url print whole, signatures and all.
func bare(err error) error {
	for {
		u, ok := errors.AsType[*url.Error](err)
		if !ok {
			return err
		}
		err = u.Err
	}
}
