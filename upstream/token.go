package upstream

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/entrepot/entrepot/upstream/credential"
)

const (
	// maxTokens bounds the tokens that are kept, one for each repository that was asked for lately. At some 2 KiB each,
	// clients that make up names can't make them weigh more than a few MiB.
	maxTokens = 4096

	maxTokenAnswer = 256 << 10
	maxToken       = 64 << 10 // no server accepts a header of more

	// unstatedLife is how long a token lasts whose server does not say: the token specification's default.
	unstatedLife = 60 * time.Second

	// longestLife keeps a server's arithmetic from becoming ours; tokens of a day have not been seen.
	longestLife = 24 * time.Hour

	// renewPause is how long a token that could not be renewed ahead of its end is used on before the next attempt.
	renewPause = 10 * time.Second
)

// token opens one repository at one endpoint. It is renewed behind the backs of those who use it once renewAt has passed,
// and not used any more from endAt on.
type token struct {
	value          string
	renewAt, endAt time.Time
}

func (t token) header() string {
	if t.value == "" {
		return ""
	}
	return "Bearer " + t.value
}

// tokenKey says what a token is good for: an account knows its endpoint.
type tokenKey struct {
	account    *account
	repository string
}

// tokens are those at hand, and the flights of those that are being asked for. The zero value is empty.
type tokens struct {
	flights singleflight.Group

	mu sync.Mutex
	// guards following
	kept map[tokenKey]token
}

func (ts *tokens) lookup(key tokenKey) (token, bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t, ok := ts.kept[key]
	return t, ok && time.Now().Before(t.endAt)
}

func (ts *tokens) keep(key tokenKey, t token) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.kept == nil {
		ts.kept = make(map[tokenKey]token)
	}
	if len(ts.kept) >= maxTokens {
		ts.makeRoomLocked()
	}
	ts.kept[key] = t
}

// makeRoomLocked drops what has ended. If that is little, any tokens go, an eighth of all so that the next look at all of
// them is some way off: whoever misses one asks for another.
func (ts *tokens) makeRoomLocked() {
	now := time.Now()
	for key, t := range ts.kept {
		if !now.Before(t.endAt) {
			delete(ts.kept, key)
		}
	}
	for key := range ts.kept {
		if len(ts.kept) <= maxTokens*7/8 {
			return
		}
		delete(ts.kept, key)
	}
}

// drop forgets a token that was refused, unless somebody has replaced it since it was sent.
func (ts *tokens) drop(key tokenKey, sent string) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.kept[key].header() == sent {
		delete(ts.kept, key)
	}
}

// token returns a token that opens a repository to an account. Callers for the same one share a token request, which
// belongs to the registry: it goes on when the caller who started it leaves.
func (r *Registry) token(ctx context.Context, a *account, repository string, c challenge) (token, error) {
	key := tokenKey{a, repository}
	t, ok := r.tokens.lookup(key)
	if ok && time.Now().Before(t.renewAt) {
		return t, nil
	}
	flight := r.tokens.flights.DoChan(a.id()+" "+repository, func() (any, error) { return r.renew(key, c) })
	if ok {
		return t, nil // still good: the flight is for those who come later
	}
	select {
	case landed := <-flight:
		if landed.Err != nil {
			return token{}, landed.Err
		}
		return landed.Val.(token), nil
	case <-ctx.Done():
		return token{}, context.Cause(ctx)
	}
}

// renew asks for a token and keeps it. It looks at what is kept first: one who saw no token may come to start a flight
// just after the flight that fetched it has landed.
func (r *Registry) renew(key tokenKey, c challenge) (token, error) {
	if !r.enter() {
		return token{}, errClosed
	}
	defer r.work.Done()
	old, ok := r.tokens.lookup(key)
	if ok && time.Now().Before(old.renewAt) {
		return old, nil
	}
	ctx, cancel := context.WithTimeoutCause(r.life, smallTimeout, errSlow)
	defer cancel()
	t, err := r.fetchToken(ctx, key, c)
	if err == nil {
		r.tokens.keep(key, t)
		return t, nil
	}
	if known, isKnown := errors.AsType[*Error](err); !isKnown || !known.Answered() && !known.Throttled() && !loginless(err) {
		// The realm may have moved. The endpoint knows where to.
		key.account.endpoint.forget(c)
	}
	if ok {
		old.renewAt = time.Now().Add(renewPause)
		r.tokens.keep(key, old)
	}
	return token{}, err
}

// fetchToken asks the realm of a challenge for a token to pull from a repository.
func (r *Registry) fetchToken(ctx context.Context, key tokenKey, c challenge) (token, error) {
	q := question{kind: kindToken, method: http.MethodGet, accept: []string{"application/json"}}
	q.op = "GET token for " + key.repository
	for again := false; ; again = true {
		try, err := r.login(ctx, key.account, q.op)
		if err != nil {
			return token{}, r.failed(q, err)
		}
		t, err := r.tokenFor(ctx, q, key, c, try.who)
		refusal, ok := errors.AsType[*Error](err)
		switch {
		case err == nil, ok && refusal.Status == http.StatusForbidden && refusal.Answered():
			r.accepted(key.account, try)
		case ok && refusal.Status == http.StatusUnauthorized && try.who != (credential.Login{}):
			status := http.StatusUnauthorized
			if !r.wasRefused(key.account, try) { // it may be what the user may not see that is meant
				status = r.atRealm(ctx, q, key.account, c, try.who)
			}
			err = r.judged(key.account, try, refusal, status)
			if !again && errors.Is(err, errRefused) && r.another(ctx, key.account, try) {
				continue
			}
		default:
			r.unheard(key.account, try)
		}
		return t, err
	}
}

// atRealm returns the status that a token server answers a login with that asks for no repository; 0: none.
func (r *Registry) atRealm(ctx context.Context, q question, a *account, c challenge, who credential.Login) int {
	_, err := r.tokenFor(ctx, q, tokenKey{account: a}, c, who)
	if known, ok := errors.AsType[*Error](err); ok {
		return known.Status
	}
	return http.StatusOK
}

// tokenFor is fetchToken with a login at hand. With no repository the token is for nothing but to see whether there is one.
func (r *Registry) tokenFor(ctx context.Context, q question, key tokenKey, c challenge, who credential.Login) (token, error) {
	realm, err := r.realm(key.account.endpoint, c, who)
	if err != nil {
		return token{}, r.failed(q, err)
	}
	key.account.endpoint.quotas.charge(key.account, small)
	q.as = key.account.identity()
	if who.IdentityToken != "" {
		return r.fetchTokenByIdentity(ctx, key.account.endpoint, realm, c.service, key.repository, who)
	}
	q.op += " from " + printable(realm.Host, maxMessage)
	named := *realm // what it is probed at: that of one repository may fail for good while all others are served
	q.realm = &named
	query := realm.Query()
	if c.service != "" {
		query.Set("service", c.service)
	}
	if key.repository != "" {
		query.Set("scope", "repository:"+key.repository+":pull")
	}
	realm.RawQuery = query.Encode()

	return r.tokenAnswer(ctx, key.account.endpoint, q, realm, basicHeader(who))
}

// parseToken reads a token server's answer. How long the token has to live is reckoned by the server's clock alone, whatever
// ours says: what it states, less the time between its issue and the date of the answer.
func parseToken(body []byte, date string) (value string, life time.Duration, err error) {
	if len(body) > maxTokenAnswer {
		return "", 0, fmt.Errorf("token answer of more than %d bytes", maxTokenAnswer)
	}
	var doc struct {
		Token       string          `json:"token"`
		AccessToken string          `json:"access_token"`
		ExpiresIn   json.RawMessage `json:"expires_in"` // a number, or a string that holds one
		IssuedAt    json.RawMessage `json:"issued_at"`
	}
	// The decoder's error is left out: it may quote what it has read.
	if json.Unmarshal(body, &doc) != nil {
		return "", 0, errors.New("token answer is not a JSON document of the expected form")
	}
	value = cmp.Or(doc.Token, doc.AccessToken)
	if value == "" {
		return "", 0, errors.New("token answer holds no token")
	}
	if len(value) > maxToken || strings.ContainsFunc(value, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "", 0, errors.New("token answer holds a token that fits no header")
	}
	life = unstatedLife
	if seconds, err := strconv.ParseFloat(unquoted(doc.ExpiresIn), 64); err == nil && seconds > 0 {
		life = time.Duration(math.Min(seconds, longestLife.Seconds()) * float64(time.Second))
	}
	issued, errIssued := time.Parse(time.RFC3339, unquoted(doc.IssuedAt))
	answered, errAnswered := http.ParseTime(date)
	if age := answered.Sub(issued); errIssued == nil && errAnswered == nil && age > 0 {
		life = max(life-age, 0)
	}
	return value, life, nil
}

func unquoted(raw json.RawMessage) string { return strings.Trim(string(raw), `"`) }
