package config

import (
	"os"
	"strings"
	"testing"
)

// TestHtpasswdFilesAreThoseThatServeTakes has what is refused at the start refused before it.
func TestHtpasswdFilesAreThoseThatServeTakes(t *testing.T) {
	const lines, anew = "; allowed: lines as htpasswd -B writes them", " is not hashed by bcrypt at a cost of 4 to 16; allowed: to make it anew by htpasswd -B"
	path := t.TempDir() + "/users"
	for _, tt := range []struct{ name, text, want string }{
		{"people", "# people\n\nalice:" + aHash + "\r\n bob:$2a" + aHash[3:], ""},
		{"none", "", "it has no user; allowed: to add one by htpasswd -B, or to leave the key out"},
		{"comments", "# none\n\n", "it has no user; allowed: to add one by htpasswd -B, or to leave the key out"},
		{"MD5", "# people\nalice:$apr1$salt$secret\n", `line 2: the password of "alice"` + anew},
		{"SHA", "alice:{SHA}secret=\n", `line 1: the password of "alice"` + anew},
		{"plain", "alice:" + aHash + "\nbob:secret\n", `line 2: the password of "bob"` + anew},
		{"accounts", "root:x:0:0:root:/root:/bin/bash\n", `line 1: the password of "root"` + anew},
		{"cut off", "alice:" + aHash[:59], `line 1: the password of "alice"` + anew},
		{"dear", "alice:$2y$17" + aHash[6:], `line 1: the password of "alice"` + anew},
		{"no colon", "secret\n", "line 1 is not a name, a colon and a bcrypt hash" + lines},
		{"no name", ":" + aHash, "line 1 is not a name, a colon and a bcrypt hash" + lines},
		{"twice", "alice:" + aHash + "\nalice:" + aHash, `line 2: "alice" is there twice; allowed: once`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			want := tt.want
			if want != "" {
				want = `f.yaml:2: access.htpasswd_file: "` + path + `": ` + want
			}
			_, err := loadText(t, "access:\n  htpasswd_file: "+path, nil)
			if got := message(err); got != want || strings.Contains(got, "secret") || strings.Contains(got, aHash[:20]) {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}
