// Package upstream asks registries for manifests and blobs: it is the HTTP client half of the mirror.
//
// A Registry is one upstream namespace and the endpoints that serve it. The life of a request:
//
//   - It is asked of an endpoint. What is named by digest is the same everywhere, so each endpoint is tried in turn until
//     one has it; a tag means what the trusted endpoints say, and the first of these that answers decides. Where all fail,
//     the word of the trusted outweighs that of the others.
//   - What becomes of a request tells how the endpoint fares, with blobs, with all else and with tokens apart: an endpoint that
//     answers for manifests may have lost the disk behind its blobs, or the server that gives its tokens. One that is down for
//     the one or the other is asked for that after all that are up, and probed behind the scenes, by a request of the same
//     sort, until it is back; one whose bytes did not match a digest is asked for blobs last, for a while.
//   - One that is not there at all, being silent or hidden by a gateway's 502, 503 or 504 again and again, and from a probe too, is
//     not asked: its door is shut, what would pass it fails at once (ErrDown), and the probe opens it. Where it is not known whether somebody is
//     there, a few requests find out and the others wait for them. So an outage costs few connections however many ask, and
//     nobody a time-out once it has been noticed; and a recovery is not met by all at once, see door.go.
//   - Only further connections for a blob, which can be done without, are denied already where an endpoint is in any trouble,
//     throttles, or ignores ranges.
//   - The endpoint's challenge, once seen, is remembered, so a token is asked for ahead of the request instead of after a
//     401. Tokens are shared by all requests for a repository and renewed before they end, by one token request however
//     many are waiting for it; a waiter that leaves disturbs nobody.
//   - What a registry says of rate limits is obeyed: what it counts is spent one by one, as another login where there are
//     several, and after a 429 one request finds out for all when it is over. A registry that mentions none is never waited for.
//   - Redirects are followed hop by hop, each a request written anew.
//   - The answer is held against what was asked: the right status, size, range, digest and sort of content. What can't be
//     a registry's answer is an *Error that is not Answered, and never reaches the cache as content or as absence. Nor
//     does a refusal of how something was asked: only 401, 403, 404, 410 and 451 speak of the thing itself.
//   - A manifest or list is read whole, within a size and a time. A blob is streamed to the caller, through the
//     lines of the registry's bandwidth, for as long as bytes keep coming. Everything else is small, and passes at the
//     expense of the blobs.
//
// Its invariants:
//
//   - Authorization is written in one place (send, on behalf of follow), and only while every URL since the endpoint's, or
//     the token realm's, has had that one's exact origin; the same holds for a client certificate, and for leave not to
//     verify the other side's. Credentials are offered to the first endpoint alone: they go
//     to its origin, to an https realm that it names over https, and to hosts that the operator has named. All others
//     are asked anonymously. Who is trusted is another matter.
//   - No error or log line holds a credential, a token, the query of a URL, or of what a redirect led to elsewhere more
//     than the host: signatures live in queries and in paths.
//   - A blob's body never ends cleanly before the size that was stated for it, and never yields more than that.
//   - No endpoint is asked the same twice on behalf of one call, but for one renewal of a token or password that is refused,
//     a GET in place of a HEAD that it does not know, what it refused by a 429, and, as another login, what it refused to one. A body that breaks off is not taken up elsewhere: patience is the caller's.
package upstream

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/entrepot/entrepot/upstream/bandwidth"
	"github.com/entrepot/entrepot/upstream/credential"
)

const (
	// MaxManifest is the size of the largest manifest or list that is read. Registries accept manifests of up to 4 MiB;
	// twice that leaves room for the generous ones while a hundred at once still fit in memory.
	MaxManifest = 8 << 20

	// smallTimeout bounds a request for something small as a whole, and what precedes the first byte of a blob: redirects
	// and the token included. It is the patience with one endpoint: where there are several, each has as long.
	smallTimeout = 30 * time.Second
)

// basicHeader is the Authorization header that carries a login; the anonymous user sends none, nor does who has an identity
// token alone, which is for a token server.
func basicHeader(who credential.Login) string {
	if who == (credential.Login{}) || who.Password == "" && who.IdentityToken != "" {
		return ""
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(who.Username+":"+who.Password))
}

// Observer is told of each request sent upstream and of the bytes that come back. Its methods are called from many
// goroutines. All its strings but the registry's name are from the lists given here.
type Observer interface {
	// UpstreamRequest is called once for each request on the wire (each hop of a redirect and each token request is
	// one), when the header of the answer has come or none will.
	// Kind is manifest, blob, token, list or probe. Outcome is ok (2xx and 3xx), refused (4xx), throttled (429) or failed (5xx,
	// 408, 425, and no answer).
	UpstreamRequest(registry, kind, outcome string, took time.Duration)

	// UpstreamBytes is called as body bytes arrive, 64 KiB or more at a time, and for the rest at the end of the body.
	UpstreamBytes(registry, kind string, n int64)
}

// Options say how to reach a registry.
type Options struct {
	Name        string              // the registry's name, for errors, logs and the observer
	Endpoints   []Endpoint          // who serves the registry; the first may have the credentials
	BySpeed     bool                // prefer endpoints by the measured speed of blobs to those that come first here
	Logins      []credential.Source // for the first endpoint alone; none: anonymous. They end with the registry, or when SetLogins has others.
	TokenRealms []string            // further hosts (host or host:port) that may receive the credentials, over any scheme
	Lines       []*bandwidth.Line   // what comes from upstream passes through all of them; only blobs wait for that
	Background  *bandwidth.Line     // for blobs that nobody waits for, besides Lines; nil: unlimited
	Observer    Observer            // nil: nobody is told
	Log         *zap.Logger         // nil: silent

	// Reserve is how many of the requests that a rate limit counts are kept for what can't be done without, of a limit of so many;
	// nil: a tenth.
	Reserve func(limit int64) int64

	DialTimeout   time.Duration // for a connection, and again for its TLS handshake; zero: 5 s
	HeaderTimeout time.Duration // for the header of an answer; zero: 15 s
	StallTimeout  time.Duration // for the next byte of a blob; zero: 30 s
	Patience      time.Duration // with a rate limit, from the start of a call; zero: 20 s

	// Bounds on further connections, as BlobRequest.Beside makes them: to bring one blob, and to one endpoint for all blobs.
	// Zero: 6 and 24.
	ConnectionsPerBlob, ConnectionsPerEndpoint int

	UserAgent string // empty: entrepot

	tune func(*http.Transport) // of tests, on each transport when it is made; nil: it stays as it is
}

// Registry is one upstream registry. Its methods may be called from many goroutines.
type Registry struct {
	name       string
	endpoints  []*endpoint
	bySpeed    bool
	reserve    func(limit int64) int64
	realms     map[string]bool // token hosts the operator has named, in lower case
	lines      bandwidth.Lines
	background *bandwidth.Line
	observer   Observer
	log        *zap.Logger
	stall      time.Duration
	patience   time.Duration
	userAgent  string

	perBlob, perEndpoint int // connections; no bound on the ones that are needed

	tokens  tokens
	offline atomic.Bool
	narrow  atomic.Int64 // until then, in nanoseconds of Unix time, a bandwidth limit is what holds blobs back

	// Token requests serve many callers and probes none, so they live as long as the registry and not as long as any of these.
	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup

	mu sync.Mutex
	// guards following
	closed bool
}

// New returns the registry that o describes. It does not dial, but reads the files that the endpoints name.
func New(o Options) (*Registry, error) {
	endpoints, err := newEndpoints(o.Endpoints, o.Logins)
	if err != nil {
		return nil, fmt.Errorf("registry %s: %w", o.Name, err)
	}
	r := &Registry{
		name:        o.Name,
		endpoints:   endpoints,
		bySpeed:     o.BySpeed,
		reserve:     o.Reserve,
		realms:      make(map[string]bool),
		lines:       o.Lines,
		background:  o.Background,
		observer:    o.Observer,
		log:         o.Log,
		stall:       cmp.Or(o.StallTimeout, 30*time.Second),
		patience:    cmp.Or(o.Patience, patience),
		userAgent:   cmp.Or(o.UserAgent, "entrepot"),
		perBlob:     cmp.Or(o.ConnectionsPerBlob, connectionsPerBlob),
		perEndpoint: cmp.Or(o.ConnectionsPerEndpoint, connectionsPerEndpoint),
	}
	if r.reserve == nil {
		r.reserve = tenth
	}
	if r.log == nil {
		r.log = zap.NewNop()
	}
	r.tell(o.Logins)
	for i, e := range endpoints {
		if e.roads, err = newRoads(e, o.Endpoints[i], o, r.log); err != nil {
			return nil, fmt.Errorf("registry %s: endpoint %s: %w", o.Name, e.name, err)
		}
	}
	for _, host := range o.TokenRealms {
		r.realms[strings.ToLower(host)] = true
	}
	r.life, r.end = context.WithCancel(context.Background())
	return r, nil
}

// Close cancels token requests, probes and looks for credentials, waits for them and closes idle connections. Bodies that are being read go on.
func (r *Registry) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.end()
	r.work.Wait()
	for _, e := range r.endpoints {
		r.putAway(e.accounts(own))
		e.roads.closeIdle()
	}
}

// enter reports whether work that Close must wait for may begin. It counts under the lock that Close takes first, so
// nothing is added to the group once Close waits for it.
func (r *Registry) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.work.Add(1)
	}
	return !r.closed
}
