package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestAnsweredIsForDefiniteAnswersOnly(t *testing.T) {
	for code := 100; code < 600; code++ {
		want := false
		switch code {
		case 401, 403, 404, 410, 451:
			want = true
		}
		if got := (&Error{Status: code}).Answered(); got != want {
			t.Errorf("status %d: answered %t", code, got)
		}
	}
	if (&Error{Err: context.DeadlineExceeded}).Answered() {
		t.Error("silence is taken for an answer")
	}
}

func TestErrorTellsWhatWasAskedAndAnswered(t *testing.T) {
	for _, tt := range []struct {
		err  Error
		want string
	}{
		{Error{Registry: "docker.io", Op: "GET manifest library/redis:7", Status: 404, Code: "MANIFEST_UNKNOWN", Message: "manifest unknown"},
			"docker.io: GET manifest library/redis:7: 404 Not Found: MANIFEST_UNKNOWN: manifest unknown"},
		{Error{Registry: "docker.io", Op: "GET manifest library/redis:7", Status: 599}, "docker.io: GET manifest library/redis:7: 599"},
		{Error{Registry: "docker.io", Op: "HEAD blob a@sha256:b", Err: errors.New("dial tcp: i/o\r\ntimeout")},
			"docker.io: HEAD blob a@sha256:b: dial tcp: i/o timeout"},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("%s, want %s", got, tt.want)
		}
	}
}

func TestRefusalCarriesUpstreamsWords(t *testing.T) {
	w := newWorld(t)
	w.serve("https://registry.test", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Retry-After", "17")
		rw.WriteHeader(http.StatusTooManyRequests)
		fmt.Fprint(rw, `{"errors":[{"code":"TOOMANYREQUESTS","message":"slow\u001b[31m down\n","detail":{"a":1}},{"code":"OTHER"}]}`)
	})
	_, _, err := w.registry(Options{Name: "quay.io"}, "https://registry.test").Manifest(t.Context(), repo, "7", nil)
	got := *asError(t, err)
	want := Error{Registry: "quay.io", Op: "GET manifest library/redis:7", Status: 429, Code: "TOOMANYREQUESTS", Message: "slow [31m down", RetryAfter: 17 * time.Second}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestParseErrorBody(t *testing.T) {
	for _, tt := range []struct{ name, body, code, message string }{
		{"OCI", `{"errors":[{"code":"NAME_UNKNOWN","message":"no such name"}]}`, "NAME_UNKNOWN", "no such name"},
		{"no errors", `{"errors":[]}`, "", ""},
		{"a number for a code", `{"errors":[{"code":5,"message":"five"}]}`, "", "five"},
		{"OAuth", `{"error":"invalid_grant","error_description":"no"}`, "invalid_grant", "no"},
		{"Docker Hub", `{"details":"incorrect username or password"}`, "", "incorrect username or password"},
		{"message", `{"message":"no"}`, "", "no"},
		{"an object for an error", `{"error":{"code":404},"message":"no"}`, "", "no"},
		{"no JSON", `<html>`, "", ""},
		{"nothing", ``, "", ""},
		{"too long", `{"errors":[{"code":"` + strings.Repeat("A", 100) + `","message":"` + strings.Repeat("ü", 200) + `"}]}`,
			strings.Repeat("A", 64) + "…", strings.Repeat("ü", 128) + "…"},
		{"invisible", `{"errors":[{"code":"A\u202eB","message":"a\u0000b\u200bc"}]}`, "A B", "a b c"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if code, message := parseErrorBody([]byte(tt.body)); code != tt.code || message != tt.message {
				t.Errorf("%q, %q; want %q, %q", code, message, tt.code, tt.message)
			}
		})
	}
}

func FuzzErrorBody(f *testing.F) {
	f.Add([]byte(`{"errors":[{"code":"NAME_UNKNOWN","message":"no such name"}]}`))
	f.Add([]byte(`{"error":"a\u0000","error_description":"\ud800"}`))
	f.Add([]byte("{\"details\":\"\xff\"}"))
	f.Fuzz(func(t *testing.T, body []byte) {
		code, message := parseErrorBody(body)
		if len(code) > maxCode+len("…") || len(message) > maxMessage+len("…") {
			t.Errorf("%d and %d bytes", len(code), len(message))
		}
		if all := code + message; !utf8.ValidString(all) || strings.ContainsFunc(all, unicode.IsControl) {
			t.Errorf("%q", all)
		}
	})
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		header string
		want   time.Duration
		stated bool
	}{
		{"", 0, false}, {"-30", 0, false}, {"1.5", 0, false}, {"soon", 0, false}, {"99999999999999999999", 0, false},
		{"0", 0, true}, {"30", 30 * time.Second, true}, {" 30 ", 30 * time.Second, true},
		{"86400", time.Hour, true}, {"18446744073709551615", time.Hour, true},
		{"Fri, 02 Jan 2026 03:04:35 GMT", 30 * time.Second, true},
		{"Fri, 02 Jan 2026 03:04:00 GMT", 0, true},
		{"Fri, 02 Jan 2037 03:04:00 GMT", time.Hour, true},
	} {
		if got, stated := parseRetryAfter(tt.header, now); got != tt.want || stated != tt.stated {
			t.Errorf("%q: %v, stated %t, want %v", tt.header, got, stated, tt.want)
		}
	}
}

func TestBareErrorHasNoURL(t *testing.T) {
	cause := errors.New("connection reset")
	err := fmt.Errorf("request: %w", &url.Error{Op: "Get", URL: "https://cdn.test/?signature=s3cret",
		Err: &url.Error{Op: "proxy", URL: "http://a:s3cret@proxy.test", Err: cause}})
	if got := bare(err); got != cause {
		t.Errorf("%v", got)
	}
	if got := bare(cause); got != cause {
		t.Errorf("%v", got)
	}
}
