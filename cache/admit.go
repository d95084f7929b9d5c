package cache

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/upstream"
)

const (
	// publicFor is how long a repository that upstream shows to everybody is taken to be public. That one turns private is rare,
	// and who has pulled it has it.
	publicFor = time.Hour

	// privateFor is how long one that it does not show is taken to be private: what was published just now should not be a
	// morning's riddle.
	privateFor = 5 * time.Minute

	// absentFor is how long upstream's word that something is not there stands, and how long a refusal of what a client has
	// presented does: both are about to change when somebody has seen to it.
	absentFor = 10 * time.Second

	// presentedFor is how long what a client has presented opens a repository, if it does not say itself how long it lasts, and
	// maxPresented how long at most: for as long it would not be noticed that it was revoked.
	presentedFor = 5 * time.Minute
	maxPresented = time.Hour

	// heldPatience is how long a request waits for the answer when the last one, that the repository is public, may stand in for it.
	// The question goes on behind. After that it is not waited for again for heldFor, unless it is answered.
	heldPatience = 2 * time.Second
	heldFor      = 10 * time.Second

	// throttledFor is how old a verdict may be that stands in for the answer of a registry that is asked too much.
	throttledFor = 24 * time.Hour

	// admitPatience is how long a request waits for the answer whether it may be answered. There is still the answer to be waited
	// for, and clients that give up at all do so after 30 s.
	admitPatience = 10 * time.Second

	// maxAdmissions bounds the verdicts in memory, at some 500 bytes each.
	maxAdmissions = 16 << 10
)

// errUnsettled says that upstream has not said in time who may have something.
var errUnsettled = errors.New("upstream is slow to say whether this may be had")

// The parts of a repository that are shown each by itself: to pull is one thing, to list another.
const (
	contentPart = "content"
	tagsPart    = "tags"
)

// Admit says by nil that upstream shows a subject to everybody, or, with an authorization, to who presents that header. The
// subject is "manifests/" and a tag or digest, "blobs/" and a digest, or "tags/list". Upstream is asked once for all the content
// of a repository, and once for its tags, however many want to know; the verdict holds for a while.
//
// The error is upstream's refusal, or ErrUnavailable if upstream does not say. That a subject is not there speaks of nothing else.
//
// Of nobody in particular: what was public stays public as long as upstream does not say otherwise, over outages and restarts. What
// was private never turns public but by upstream's word. What a client may have is not kept on disk, and not beyond its time.
func (c *Cache) Admit(ctx context.Context, repo Repository, subject, authorization string) error {
	r, err := c.remote(repo)
	if err != nil {
		return err
	}
	who := c.admissions.asker(authorization)
	known, ok, err := c.admitted(repo, who, subject)
	if ok && c.lasts(known) {
		return known.err
	}
	if err != nil {
		return err
	}
	public, most := ok && known.err == nil && who == nobody, admitPatience
	if public {
		most = heldPatience
	}
	wait, cancel := context.WithTimeoutCause(ctx, most, errUnsettled)
	defer cancel()
	settle := func(about string) (led bool, err error) {
		_, led, err = share(wait, c, "admit "+hex.EncodeToString(who[:])+" "+repo.String()+" "+about, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, c.ask(ctx, r, repo, who, subject, authorization)
		})
		return led, err
	}
	led, err := settle(partOf(subject))
	if isAbsent(err) && !led {
		_, err = settle(subject) // it is what somebody else has asked for that is not there
	}
	switch {
	case err == nil, isAnswer(err), ctx.Err() != nil:
		return err
	case public && c.holds(known, err):
		c.admissions.hold(admissionKey{repo, who, partOf(subject)}, known, c.opts.Now().Add(heldFor))
		return nil
	case ok && known.err != nil:
		return known.err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// holds reports whether that a repository was public holds although upstream did not say so now. What is about how something was
// asked for, as by a 400, anybody could have upstream say for ever, and a 429 at least for long.
func (c *Cache) holds(known admission, err error) bool {
	if isThrottled(err) {
		return c.opts.Now().Sub(known.checked) < throttledFor
	}
	return isOutage(err) || errors.Is(err, errUnsettled)
}

// admitted looks up what is known of the part that the subject is of; ok is false if that is nothing. The error is that the
// subject was not there a moment ago.
func (c *Cache) admitted(repo Repository, who asker, subject string) (known admission, ok bool, err error) {
	part := partOf(subject)
	known, ok = c.admissions.get(admissionKey{repo, who, part})
	if ok && c.lasts(known) {
		return known, true, nil
	}
	if absent, found := c.admissions.get(admissionKey{repo, who, subject}); found && c.lasts(absent) {
		err = absent.err
	}
	if ok || who != nobody {
		return known, ok, err
	}
	checked, ok := c.index.Public(repo, part)
	if !ok {
		return admission{}, false, err
	}
	return c.admissions.add(admissionKey{repo, who, part}, admission{checked: checked, until: checked.Add(publicFor)}), true, err
}

// lasts reports whether a verdict needs no other yet. A clock that was set back makes it too old, not eternal.
func (c *Cache) lasts(a admission) bool {
	now := c.opts.Now()
	return now.Before(a.until) && !now.Before(a.checked)
}

// ask asks upstream, and takes the answer down.
//
// A repository that turned private is so in memory first and on disk then: who loads the old record meanwhile finds the new
// verdict when it adds what it has loaded.
func (c *Cache) ask(ctx context.Context, r *remote, repo Repository, who asker, subject, authorization string) error {
	if known, ok, err := c.admitted(repo, who, subject); err != nil || ok && c.lasts(known) {
		return errors.Join(err, known.err) // a flight that ended since the caller looked has asked
	}
	err := c.shows(ctx, r, repo, subject, authorization)
	if tag, isTag := strings.CutPrefix(subject, "manifests/"); isTag && isAbsent(err) {
		if rec, known := c.index.Tag(repo, tag); known { // deleted, maybe: what it named tells as well whether the repository is shown
			if c.shows(ctx, r, repo, "manifests/"+rec.Manifest.Digest.String(), authorization) == nil {
				err = nil
			}
		}
	}
	if err != nil && !isAnswer(err) {
		return err
	}
	part, now := partOf(subject), c.opts.Now()
	verdict := admission{err: err, checked: now}
	switch {
	case isAbsent(err):
		verdict.until = now.Add(absentFor)
		c.admissions.put(admissionKey{repo, who, strings.Clone(subject)}, verdict)
	case who != nobody && err != nil:
		verdict.until = now.Add(absentFor)
		c.admissions.put(admissionKey{repo, who, part}, verdict)
	case who != nobody:
		verdict.until = now.Add(lifeOf(authorization, now))
		c.admissions.put(admissionKey{repo, who, part}, verdict)
	case err != nil:
		verdict.until = now.Add(privateFor)
		c.admissions.put(admissionKey{repo, who, part}, verdict)
		if _, was := c.index.Public(repo, part); was || c.index.Temporary() { // the index that is not open may know it
			c.logged(c.index.DeletePublic(repo, part))
		}
	default:
		verdict.until = now.Add(publicFor)
		c.admissions.put(admissionKey{repo, who, part}, verdict)
		c.logged(c.index.SetPublic(repo, part, now))
	}
	return err
}

// errUnlike says that upstream's answer is not about the content that is known by the digest.
var errUnlike = errors.New("upstream's answer has another size than the content")

// shows asks upstream. What it shows must be what is known by that digest, as far as can be told by its size.
func (c *Cache) shows(ctx context.Context, r *remote, repo Repository, subject, authorization string) error {
	size, err := r.Shows(ctx, repo.Name, subject, authorization)
	_, name, _ := strings.Cut(subject, "/")
	d, isDigest := digest.Parse(name)
	if err != nil || isDigest != nil {
		return err
	}
	if m, known := c.index.Member(repo, d); known && m.Confirmed && m.Size > 0 && size >= 0 && m.Size != size {
		return errUnlike
	}
	return nil
}

// Challenge returns what a registry asks of a client that wants to pull from a repository, as the value of a WWW-Authenticate
// header; "" if it asks for nothing. With an empty repository it is what it asks at its root.
func (c *Cache) Challenge(ctx context.Context, repo Repository) (string, error) {
	r, err := c.remote(repo)
	if err != nil {
		return "", err
	}
	wait, cancel := context.WithTimeoutCause(ctx, admitPatience, errUnsettled)
	defer cancel()
	challenge, _, err := share(wait, c, "challenge "+repo.String(), func(ctx context.Context) (string, error) {
		return r.Challenge(ctx, repo.Name)
	})
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return challenge, err
}

func partOf(subject string) string {
	if strings.HasPrefix(subject, "tags/") {
		return tagsPart
	}
	return contentPart
}

// isAbsent reports whether an error says that something is not there, or withheld from all, which is no word on the rest of the
// repository.
func isAbsent(err error) bool {
	e, ok := errors.AsType[*upstream.Error](err)
	return ok && (isAbsence(err) || e.Status == http.StatusUnavailableForLegalReasons)
}

// asker is who wants to be admitted: a keyed hash of what a client has presented, which is kept nowhere else.
type asker [sha256.Size]byte

var nobody asker

type admissionKey struct {
	repo Repository
	who  asker
	what string // a part, or the subject that is not there
}

// admission is a verdict.
type admission struct {
	err            error // nil: shown
	checked, until time.Time
}

// admissions are the verdicts in memory.
type admissions struct {
	key [32]byte

	mu sync.Mutex
	// guards following
	known map[admissionKey]admission
}

func newAdmissions() *admissions {
	a := &admissions{known: make(map[admissionKey]admission)}
	_, _ = rand.Read(a.key[:]) // never fails
	return a
}

func (a *admissions) asker(authorization string) (who asker) {
	if authorization == "" {
		return nobody
	}
	h := hmac.New(sha256.New, a.key[:])
	h.Write([]byte(authorization))
	h.Sum(who[:0])
	return who
}

func (a *admissions) get(key admissionKey) (admission, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	known, ok := a.known[key]
	return known, ok
}

func (a *admissions) put(key admissionKey, verdict admission) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.putLocked(key, verdict)
}

// add is put, unless there is a verdict: then that is returned.
func (a *admissions) add(key admissionKey, verdict admission) admission {
	a.mu.Lock()
	defer a.mu.Unlock()
	if known, ok := a.known[key]; ok {
		return known
	}
	a.putLocked(key, verdict)
	return verdict
}

// hold has a verdict last until then, unless there is a newer one.
func (a *admissions) hold(key admissionKey, verdict admission, until time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if known, ok := a.known[key]; ok && known.err == nil && known.checked.Equal(verdict.checked) {
		known.until = until
		a.known[key] = known
	}
}

// putLocked makes room if need be: an eighth, whichever that is, so that the next time is some way off.
func (a *admissions) putLocked(key admissionKey, verdict admission) {
	if len(a.known) >= maxAdmissions {
		for k := range a.known {
			if delete(a.known, k); len(a.known) <= maxAdmissions*7/8 {
				break
			}
		}
	}
	a.known[key] = verdict
}

// lifeOf is how long a verdict on what a client has presented lasts. A token that has ended by our clock, and not by upstream's,
// is asked about each time.
func lifeOf(authorization string, now time.Time) time.Duration {
	end, ok := endOf(authorization)
	if !ok {
		return presentedFor
	}
	return min(max(end.Sub(now), 0), maxPresented)
}

// endOf reads when a token ends, if it is a JWT (RFC 7519) and says so. Nothing is believed but that: its signature is for
// upstream to check.
func endOf(authorization string) (end time.Time, ok bool) {
	scheme, token, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return time.Time{}, false
	}
	_, rest, _ := strings.Cut(strings.TrimSpace(token), ".")
	payload, _, ok := strings.Cut(rest, ".")
	if !ok {
		return time.Time{}, false
	}
	text, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(payload, "="))
	if err != nil {
		return time.Time{}, false
	}
	var claims struct {
		Exp float64 `json:"exp"` // seconds, perhaps with a fraction
	}
	const latest = 1 << 40 // of which no clock will ever tell
	if json.Unmarshal(text, &claims) != nil || claims.Exp <= 0 || claims.Exp > latest {
		return time.Time{}, false
	}
	return time.Unix(int64(claims.Exp), 0), true
}
