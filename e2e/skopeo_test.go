package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/entrepot/entrepot/e2e/testbed"
)

func TestSkopeo(t *testing.T) {
	need(t, "skopeo")
	tryClient(t, newSkopeo)
}

// skopeo copies one platform of an image into a directory.
type skopeo struct {
	dir, image string
	env        []string
}

func newSkopeo(t *testing.T, mirror string) client {
	dir := workDir(t, "skopeo")
	env := append(isolated(dir), containersImageFiles(t, dir, mirror)...)
	return &skopeo{dir: dir, image: filepath.Join(dir, "image"), env: env}
}

func (s *skopeo) Fresh(context.Context) error { return os.RemoveAll(s.image) }

func (s *skopeo) Pull(ctx context.Context, reference, arch string) (pulled, error) {
	_, err := testbed.Run(ctx, s.env, "skopeo", "--policy", filepath.Join(s.dir, "policy.json"),
		"--registries-conf", filepath.Join(s.dir, "registries.conf"), "--override-arch", arch,
		"copy", "docker://docker.io/"+reference, "dir:"+s.image)
	if err != nil {
		return pulled{}, err
	}
	body, err := os.ReadFile(filepath.Join(s.image, "manifest.json"))
	if err != nil {
		return pulled{}, err
	}
	var m v1.Manifest
	if err := json.Unmarshal(body, &m); err != nil {
		return pulled{}, err
	}
	return pulled{digest: fmt.Sprintf("sha256:%x", sha256.Sum256(body)), config: m.Config.Digest.String()}, nil
}
