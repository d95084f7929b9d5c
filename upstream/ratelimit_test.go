package upstream

import (
	"net/http"
	"testing"
	"time"
)

func TestLimitsAreReadOffAnAnswer(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	hours := 6 * time.Hour
	for _, tt := range []struct {
		name   string
		status int
		header map[string]string
		want   limits
	}{
		{"nothing", 200, nil, limits{came: true}},
		{"Docker Hub's", 200, map[string]string{"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "76;w=21600"},
			limits{came: true, stated: true, limit: 100, remaining: 76, window: hours}},
		{"of lower case, with spaces", 200, map[string]string{"ratelimit-limit": " 100 ; w = 21600", "ratelimit-remaining": " 0 ;w=21600 "},
			limits{came: true, stated: true, limit: 100, remaining: 0, window: hours}},
		{"a list, with a comment", 200, map[string]string{"RateLimit-Limit": `100, 100;w=60;comment="fixed"`, "RateLimit-Remaining": "5"},
			limits{came: true, stated: true, limit: 100, remaining: 5, window: unstatedWindow}},
		{"window of the limit alone", 200, map[string]string{"RateLimit-Limit": "100;w=60", "RateLimit-Remaining": "5"},
			limits{came: true, stated: true, limit: 100, remaining: 5, window: time.Minute}},
		{"no limit", 200, map[string]string{"RateLimit-Remaining": "5;w=60"}, limits{came: true, stated: true, limit: 5, remaining: 5, window: time.Minute}},
		{"no remainder", 200, map[string]string{"RateLimit-Limit": "5;w=60"}, limits{came: true}},
		{"nonsense", 200, map[string]string{"RateLimit-Limit": "x", "RateLimit-Remaining": "-1;w=60"}, limits{came: true}},
		{"too much", 200, map[string]string{"RateLimit-Remaining": "99999999999999999999"}, limits{came: true}},
		{"429", 429, map[string]string{"Retry-After": "7"}, limits{came: true, throttled: true, retryAfter: 7 * time.Second}},
		{"429, date", 429, map[string]string{"Retry-After": "Fri, 02 Jan 2026 03:05:05 GMT"}, limits{came: true, throttled: true, retryAfter: time.Minute}},
		{"429, Docker Hub's date", 429, map[string]string{"X-Retry-After": "1767323105"}, limits{came: true, throttled: true, retryAfter: time.Minute}},
		{"429, Docker Hub's seconds", 429, map[string]string{"X-Retry-After": "9"}, limits{came: true, throttled: true, retryAfter: 9 * time.Second}},
		{"429, the year 36812", 429, map[string]string{"X-Retry-After": "1099511627776000"}, limits{came: true, throttled: true, retryAfter: time.Hour}},
		{"429, past", 429, map[string]string{"X-Retry-After": "1000000000"}, limits{came: true, throttled: true}},
	} {
		resp := &http.Response{StatusCode: tt.status, Header: http.Header{}}
		for name, value := range tt.header {
			resp.Header.Set(name, value)
		}
		if got := limitsOf(resp, now); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func FuzzLimits(f *testing.F) {
	f.Add("100;w=21600", "76;w=21600", "", "1767323105")
	f.Add("100, 100;w=60", "5;w=0;w=-1;w=9999999999999999", "Fri, 02 Jan 2026 03:05:05 GMT", "")
	f.Add(";;;=,", "\x00;w", "-1", "9223372036854775807")
	f.Fuzz(func(t *testing.T, limit, remaining, after, own string) {
		now := time.Now()
		l := limitsOf(&http.Response{StatusCode: 429, Header: http.Header{"Ratelimit-Limit": {limit}, "Ratelimit-Remaining": {remaining},
			"Retry-After": {after}, "X-Retry-After": {own}}}, now)
		if l.retryAfter < 0 || l.retryAfter > maxRetryAfter {
			t.Errorf("%s", l.retryAfter)
		}
		if l.stated && (l.remaining < 0 || l.limit < l.remaining || l.limit < 1 || l.limit > maxLimit || l.window <= 0 || l.window > maxWindow) {
			t.Errorf("%+v", l)
		}
	})
}
