package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// tls checks what the listener for clients shows, and whom it believes.
func (k *checker) tls() {
	t := k.config.TLS
	k.pair("tls.cert_file", t.CertFile, "tls.key_file", t.KeyFile)
	k.authorities("tls.client_ca_file", t.ClientCAFile)
	if t.ClientCAFile != "" && t.CertFile == "" {
		k.fail("tls.client_ca_file", "clients show certificates over TLS alone; allowed: with cert_file and key_file")
	}
}

// pair checks a certificate and its key.
func (k *checker) pair(certKey, cert, keyKey, key string) {
	const allowed = "allowed: two PEM files, a certificate and its key"
	switch {
	case cert == "" && key == "":
		return
	case key == "":
		k.fail(certKey, "a certificate without its key; %s", allowed)
		return
	case cert == "":
		k.fail(keyKey, "a key without its certificate; %s", allowed)
		return
	}
	certPEM, keyPEM := k.file(certKey, cert, maxSecretFile, allowed), k.file(keyKey, key, maxSecretFile, allowed)
	if certPEM == nil || keyPEM == nil {
		return
	}
	if _, err := tls.X509KeyPair(certPEM, keyPEM); err != nil {
		k.fail(certKey, "%s and %s are no pair: %s; %s", quote(cert), quote(key), err, allowed)
	}
}

// authorities checks a file of certificates.
func (k *checker) authorities(key, path string) {
	const allowed = "allowed: a file with certificates in PEM"
	if path == "" {
		return
	}
	if text := k.file(key, path, maxSecretFile, allowed); text != nil && !x509.NewCertPool().AppendCertsFromPEM(text) {
		k.fail(key, "%s has no certificate; %s", quote(path), allowed)
	}
}

// file returns what a file of at most limit bytes holds, nil if it can't be had.
func (k *checker) file(key, path string, limit int64, allowed string) []byte {
	text, err := readRegular(path, limit)
	if err != nil {
		k.fail(key, "%s; %s", err, allowed)
		return nil
	}
	return text
}

// htpasswd checks a file of users and passwords.
func (k *checker) htpasswd(key, path string) {
	if path == "" {
		return
	}
	text := k.file(key, path, maxHtpasswd, "allowed: a file that can be read, with lines as htpasswd -B writes them")
	if problem := htpasswdProblem(text); text != nil && problem != "" {
		k.fail(key, "%s: %s", quote(path), problem)
	}
}

// access checks who may pull.
func (k *checker) access(registries []string) {
	a := k.config.Access
	k.filled("access.allow_clients",
		"an empty list would let in everybody; allowed: networks such as 10.0.0.0/8, or to leave the key out for everybody")
	k.htpasswd("access.htpasswd_file", a.HtpasswdFile)
	const how = "allowed: with access.htpasswd_file or tls.client_ca_file"
	if a.Anonymous == "deny" && !k.config.identifies() {
		k.fail("access.anonymous", "nobody could say who they are, so nobody could pull; %s", how)
	}
	if len(a.Users) > 0 && !k.config.identifies() {
		k.fail("access.users", "nobody could say who they are; %s", how)
	}
	for _, name := range slices.Sorted(maps.Keys(a.Users)) {
		key := join("access.users", name)
		if name == "" || strings.ContainsRune(name, ':') || name != oneLine(name) {
			k.fail(key, "%s is not a user's name; allowed: a text without colons and control characters", quote(name))
		}
		if len(a.Users[name].Pull) == 0 {
			k.fail(key, "%s may pull no more than everybody; allowed: pull, with patterns such as ghcr.io/corp/**", quote(name))
		}
		k.patterns(key+".pull", a.Users[name].Pull, registries)
		for i, pattern := range a.Users[name].Pull {
			if registry, repository, _, tagged := pattern.cut(); tagged {
				k.fail(item(key+".pull", i), "%s has a tag, but layers are asked for without one, so nobody could pull; allowed: %s",
					quote(string(pattern)), clip(registry+"/"+repository))
			}
		}
	}
}

const loginAllowed = "allowed: username with password or password_file, or docker_config, or helper, or exec"

// login checks credentials: there is one way to have them, and what goes with it.
func (k *checker) login(l Login, key string) {
	if k.from.of(key+".password").refused || !k.filled(key+".exec", execProblem) { // there is one, in a way
		return
	}
	way := ""
	for _, w := range []struct {
		name  string
		given bool
	}{
		{"password", !l.Password.IsZero()}, {"password_file", l.PasswordFile != ""}, {"docker_config", l.DockerConfig != ""},
		{"helper", l.Helper != ""}, {"exec", len(l.Exec) > 0},
	} {
		switch {
		case w.given && way != "":
			k.fail(key+"."+w.name, "%s and %s are both given; %s", way, w.name, loginAllowed)
		case w.given:
			way = w.name
		}
	}
	isPassword, isRun := way == "password" || way == "password_file", way == "helper" || way == "exec"
	switch {
	case way == "" && l.Username != "":
		k.fail(key+".username", "a username without a password; %s", loginAllowed)
	case way == "":
		k.fail(key, "neither a password nor where to get one is given; %s", loginAllowed)
	case isPassword && l.Username == "":
		k.fail(key+"."+way, "a %s without a username; %s", way, loginAllowed)
	case !isPassword && way != "exec" && l.Username != "":
		k.fail(key+".username", "a username besides %s, which has its own; %s", way, loginAllowed)
	case l.Lifetime != 0 && !isRun:
		k.fail(key+".lifetime", "what %s gives has none; allowed: with helper or exec", way)
	}
	k.loginSource(l, key)
}

const execProblem = "it names no command; allowed: a command and its arguments, such as [aws, ecr, get-login-password]"

// loginSource checks where credentials are to come from, as far as that can be seen without having them.
func (k *checker) loginSource(l Login, key string) {
	if err := l.passwordFile(); err != nil {
		k.fail(key+".password_file", "%s; allowed: a file that can be read and holds the password", err)
	}
	if l.DockerConfig != "" {
		const allowed = "allowed: a config.json of docker's"
		if text := k.file(key+".docker_config", l.DockerConfig, maxSecretFile, allowed); text != nil && !json.Valid(text) {
			k.fail(key+".docker_config", "%s is not JSON; %s", quote(l.DockerConfig), allowed)
		}
	}
	if strings.ContainsAny(l.Helper, "/\\ ") || strings.HasPrefix(l.Helper, "docker-credential-") {
		k.fail(key+".helper", "%s is not a helper; allowed: what follows docker-credential- in its name, such as ecr-login", quote(l.Helper))
	}
	if len(l.Exec) > 0 && l.Exec[0] == "" {
		k.fail(key+".exec", execProblem)
	}
}
