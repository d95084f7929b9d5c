package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/entrepot/entrepot/upstream/credential"
)

// fetchTokenByIdentity asks a realm that an endpoint names, and that this user may ask, for a token to pull from a repository, in exchange for the
// user's identity token: by OAuth 2.0, as the token specification of distribution has it. It is asked by POST, since the
// identity token is a password and must be in no URL. Its errors are of type *Error.
func (r *Registry) fetchTokenByIdentity(ctx context.Context, e *endpoint, realm *url.URL, service, repository string, who credential.Login) (token, error) {
	q := question{kind: kindToken, method: http.MethodPost, accept: []string{"application/json"},
		op: "POST token for " + repository + " from " + printable(realm.Host, maxMessage), realm: realm}
	q.form = url.Values{
		"grant_type":    {"refresh_token"},
		"refresh_token": {who.IdentityToken},
		"client_id":     {"entrepot"},
		"service":       {service},
	}
	if repository != "" {
		q.form.Set("scope", "repository:"+repository+":pull")
	}
	t, err := r.tokenAnswer(ctx, e, q, realm, "")
	if failed, ok := errors.AsType[*Error](err); ok && failed.Status == http.StatusBadRequest && failed.Code == "invalid_grant" {
		// So OAuth says of a refresh token what a 401 says of a password.
		failed.Status, failed.hearsay = http.StatusUnauthorized, false
	}
	return t, err
}

// tokenAnswer asks the token server that an endpoint names q at a URL of it, and reads the token off its answer.
func (r *Registry) tokenAnswer(ctx context.Context, e *endpoint, q question, to *url.URL, authorization string) (token, error) {
	sent := time.Now()
	r.named(e, originOf(to))
	resp, err := r.ask(ctx, e, q, to, authorization)
	if err != nil {
		return token{}, r.failed(q, err)
	}
	if resp.StatusCode != http.StatusOK {
		return token{}, r.refusal(q, resp, originOf(to))
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer+1))
	if err != nil {
		return token{}, r.failed(q, causeOf(ctx, err))
	}
	value, life, err := parseToken(body, resp.Header.Get("Date"))
	if err != nil {
		return token{}, r.unfit(q, resp, "%w", err)
	}
	return token{
		value:   value,
		renewAt: sent.Add(life * 4 / 5),
		// It should not end on its way there. For the short-lived ones a second has to do.
		endAt: sent.Add(life - min(life/20, 10*time.Second)),
	}, nil
}
