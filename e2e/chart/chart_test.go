// Package chart renders the Helm chart as helm does and asks whether what comes out fits together: with Kubernetes' own
// types, with entrepot's own reading of its configuration, and with what the chart's README says.
//
// Run it by go test -count=1 ./...: go's cache of test results does not see a change outside this module.
package chart

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	yamlnode "go.yaml.in/yaml/v4"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/entrepot/entrepot/config"
)

const dir = "../../charts/entrepot"

// release is what the chart renders to.
type release struct {
	notes             string
	files             corev1.ConfigMap
	set               appsv1.StatefulSet
	service, headless corev1.Service
	policy            networkingv1.NetworkPolicy
}

// render renders the chart with values, which are YAML, laid over its defaults; the error is Helm's. Every document is
// decoded strictly: a field that Kubernetes does not know, or one given twice, ends the test.
func render(t *testing.T, values string) (*release, error) {
	t.Helper()
	given := map[string]any{}
	check(t, yaml.Unmarshal([]byte(values), &given))
	chart, err := loader.LoadDir(dir)
	check(t, err)
	merged, err := util.ToRenderValues(chart, given, common.ReleaseOptions{Name: "test", Namespace: "mirrors"}, nil)
	if err != nil {
		return nil, err
	}
	rendered, err := engine.Render(chart, merged)
	if err != nil {
		return nil, err
	}
	r := &release{notes: rendered["entrepot/templates/NOTES.txt"]}
	delete(rendered, "entrepot/templates/NOTES.txt")
	targets := map[string]any{
		"ConfigMap test-entrepot": &r.files, "StatefulSet test-entrepot": &r.set, "NetworkPolicy test-entrepot": &r.policy,
		"Service test-entrepot": &r.service, "Service test-entrepot-headless": &r.headless,
	}
	for _, text := range rendered {
		for document := range strings.SplitSeq(text, "\n---\n") {
			if strings.TrimSpace(document) == "" {
				continue
			}
			var head metav1.PartialObjectMetadata
			check(t, yaml.Unmarshal([]byte(document), &head))
			name := head.Kind + " " + head.Name
			if targets[name] == nil {
				t.Fatalf("%s is not expected, or comes twice", name)
			}
			check(t, yaml.UnmarshalStrict([]byte(document), targets[name]))
			delete(targets, name)
		}
	}
	return r, nil
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r *release) pod() corev1.PodSpec         { return r.set.Spec.Template.Spec }
func (r *release) container() corev1.Container { return r.pod().Containers[0] }

func (r *release) env(name string) string {
	for _, v := range r.container().Env {
		if v.Name == name {
			return v.Value
		}
	}
	return ""
}

// mount is the volume mounted at a path, of which a claim has but a name; the zero Volume if there is none.
func (r *release) mount(at string) corev1.Volume {
	for _, m := range r.container().VolumeMounts {
		if m.MountPath == at {
			volumes := append(r.pod().Volumes, corev1.Volume{Name: m.Name})
			return volumes[slices.IndexFunc(volumes, func(v corev1.Volume) bool { return v.Name == m.Name })]
		}
	}
	return corev1.Volume{}
}

var passwordFile = regexp.MustCompile(`password_file: (\S+)`)

// load is entrepot's own reading of the rendered configuration. Password files exist for it where a Secret is mounted.
func (r *release) load(t *testing.T) *config.Config {
	t.Helper()
	const name = "entrepot.yaml"
	args := []string{"serve", "--config", "/etc/entrepot/" + name}
	if v := r.mount("/etc/entrepot").ConfigMap; v == nil || v.Name != r.files.Name || !reflect.DeepEqual(r.container().Args, args) {
		t.Error("the program is not given its configuration file")
	}
	root, text := t.TempDir(), r.files.Data[name]
	for i, match := range passwordFile.FindAllStringSubmatch(text, -1) {
		at := path.Dir(match[1])
		if v := r.mount(at).Secret; v == nil || v.SecretName != path.Base(at) {
			t.Errorf("no Secret is mounted for %s", match[1])
		}
		file := filepath.Join(root, strconv.Itoa(i))
		check(t, os.WriteFile(file, []byte("s3cret"), 0o600))
		text = strings.ReplaceAll(text, match[1], file)
	}
	check(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o600))
	c, err := config.Load(filepath.Join(root, name), nil)
	check(t, err)
	return c
}

// fits checks what must hold whatever the values are.
func fits(t *testing.T, r *release, c *config.Config) {
	t.Helper()
	must := func(ok bool, what string) {
		t.Helper()
		if !ok {
			t.Error("not so: " + what)
		}
	}
	pod, container := r.pod(), r.container()
	must(*r.set.Spec.Replicas == 1 && r.set.Spec.ServiceName == r.headless.Name, "one pod behind its headless Service")
	must(r.headless.Spec.ClusterIP == "None" && r.service.Spec.ClusterIP == "", "one Service is headless")
	for _, selector := range []map[string]string{r.set.Spec.Selector.MatchLabels, r.service.Spec.Selector, r.headless.Spec.Selector} {
		want := map[string]string{"app.kubernetes.io/name": "entrepot", "app.kubernetes.io/instance": "test"}
		must(reflect.DeepEqual(selector, want) && r.set.Spec.Template.Labels["app.kubernetes.io/instance"] == "test", "the pod is selected")
	}
	for i, address := range map[int]string{0: c.Listen, 1: c.AdminListen} {
		must(strings.HasSuffix(address, fmt.Sprintf(":%d", container.Ports[i].ContainerPort)), "the port of "+address)
	}
	must(container.Ports[0].Name == "mirror" && container.Ports[1].Name == "admin", "the ports have names")
	for _, s := range []corev1.Service{r.service, r.headless} {
		must(len(s.Spec.Ports) == 1 && s.Spec.Ports[0].TargetPort.StrVal == "mirror", "a Service leads to the mirror alone")
	}
	for probe, path := range map[*corev1.Probe]string{
		container.StartupProbe: "/healthz", container.LivenessProbe: "/healthz", container.ReadinessProbe: "/readyz",
	} {
		must(probe.HTTPGet.Path == path && probe.HTTPGet.Port.StrVal == "admin", "a probe asks the admin port for "+path)
	}
	must(r.mount(c.DataDir).Name != "", "the volume is mounted at data_dir")
	must(time.Duration(*pod.TerminationGracePeriodSeconds)*time.Second > time.Duration(c.ShutdownGrace), "the pod outlives shutdown_grace")
	must(!*pod.EnableServiceLinks && !*pod.AutomountServiceAccountToken, "neither service links nor a token")
	must(*pod.SecurityContext.RunAsNonRoot && *pod.SecurityContext.RunAsUser != 0 && *pod.SecurityContext.FSGroup != 0, "not root")
	must(pod.SecurityContext.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault, "the runtime's seccomp profile")
	must(*container.SecurityContext.ReadOnlyRootFilesystem && !*container.SecurityContext.AllowPrivilegeEscalation, "nothing to write to or to rise by")
	must(reflect.DeepEqual(container.SecurityContext.Capabilities, &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}), "no capabilities")
}

func TestRendersWhatFits(t *testing.T) {
	for _, test := range []struct {
		name, values string
		holds        func(r *release, c *config.Config) bool
	}{
		{"defaults", "", func(r *release, c *config.Config) bool {
			claim := r.set.Spec.VolumeClaimTemplates[0]
			return c.Cache.MaxSize.Bytes == 90<<30 && claim.Spec.Resources.Requests.Storage().Value() == 100<<30 &&
				claim.Spec.StorageClassName == nil && r.env("GOMEMLIMIT") == "966367641" && r.policy.Name == "" &&
				strings.HasSuffix(r.container().Image, ":0.1.0") && r.set.Spec.Template.Annotations["prometheus.io/port"] == "5001"
		}},
		{"node port", "{service: {type: NodePort, nodePort: 30500}, config: {registries: {ghcr.io: {}, quay.io: null}}}", func(r *release, c *config.Config) bool {
			return r.service.Spec.Ports[0].NodePort == 30500 && len(c.Registries) == 3 &&
				strings.Count(r.notes, `[host."http://NODE:30500"]`) == 3 && strings.Contains(r.notes, `server = "https://registry-1.docker.io"`)
		}},
		{"other addresses", `{config: {listen: "0.0.0.0:8080", admin_listen: "[::]:9090", data_dir: /cache, shutdown_grace: 1h30m}}`, func(r *release, c *config.Config) bool {
			return r.headless.Spec.Ports[0].Port == 8080 && r.service.Spec.Ports[0].Port == 5000 && *r.pod().TerminationGracePeriodSeconds == 5430
		}},
		{"secrets", `
secrets: [hub, private.ghcr]
config:
  registries:
    docker.io: {credentials: {username: ci, password_file: /run/secrets/entrepot/hub/token}}
    ghcr.io: {credentials: {username: bot, password_file: /run/secrets/entrepot/private.ghcr/password}}`, func(r *release, c *config.Config) bool {
			password, err := os.ReadFile(c.Registries["ghcr.io"].Credentials[0].PasswordFile)
			return err == nil && strings.TrimSpace(string(password)) == "s3cret" && *r.pod().Volumes[1].Secret.DefaultMode == 0o440
		}},
		{"policy", `{config: {offline: true, access: {allow_clients: [10.0.0.0/8]}, registries: {a.io: {credentials: [{helper: ecr-login}, {exec: [a, b]}],
endpoints: [{url: https://a.io, proxy: "http://proxy.example:3128"}]}}, bandwidth: {upstream: "mon-fri 08:00-18:00 20Mbit/s, else unlimited"}}}`, func(r *release, c *config.Config) bool {
			return c.Offline && len(c.Access.AllowClients) == 1 && len(c.Registries["a.io"].Credentials) == 2 && !c.Bandwidth.Upstream.IsZero()
		}},
		{"empty directory", "{persistence: {enabled: false, size: 20Gi}, config: {cache: {max_size: 15GiB}}}", func(r *release, c *config.Config) bool {
			return r.mount(c.DataDir).EmptyDir.SizeLimit.Value() == 20<<30 && r.set.Spec.VolumeClaimTemplates == nil
		}},
		{"network policy", "{networkPolicy: {enabled: true}}", func(r *release, c *config.Config) bool {
			rules := r.policy.Spec.Ingress
			return len(rules) == 1 && rules[0].Ports[0].Port.StrVal == "mirror" && rules[0].From == nil
		}},
		{"network policy with peers", "{networkPolicy: {enabled: true, from: [{ipBlock: {cidr: 10.0.0.0/8}}], adminFrom: [{podSelector: {}}]}}", func(r *release, c *config.Config) bool {
			rules := r.policy.Spec.Ingress
			return len(rules) == 2 && len(rules[0].From) == 1 && rules[1].Ports[0].Port.StrVal == "admin" && len(rules[1].From) == 1
		}},
		{"no memory limit", "{resources: {limits: null}}", func(r *release, c *config.Config) bool { return r.container().Env == nil }},
		{"all the extras", `
{image: {repository: r.example/e, tag: dev}, imagePullSecrets: [{name: pull}], serviceAccountName: own, priorityClassName: high,
persistence: {storageClass: fast, accessMode: ReadWriteOncePod}, service: {type: LoadBalancer, annotations: {e: f}},
prometheusAnnotations: false, resources: {limits: {memory: 1.5G}}, podAnnotations: {a: b}, podLabels: {c: d},
nodeSelector: {disk: fast}, tolerations: [{operator: Exists}], affinity: {nodeAffinity: {}},
extraEnv: [{name: HTTPS_PROXY, value: "http://proxy.example:3128"}],
extraVolumes: [{name: ca, configMap: {name: ca}}], extraVolumeMounts: [{name: ca, mountPath: /ca}]}`, func(r *release, c *config.Config) bool {
			return r.container().Image == "r.example/e:dev" && r.env("GOMEMLIMIT") == "1350000000" && r.env("HTTPS_PROXY") != "" &&
				r.mount("/ca").ConfigMap != nil && *r.set.Spec.VolumeClaimTemplates[0].Spec.StorageClassName == "fast" &&
				len(r.set.Spec.Template.Annotations) == 2 && r.set.Spec.Template.Labels["c"] == "d"
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := render(t, test.values)
			check(t, err)
			c := r.load(t)
			fits(t, r, c)
			if !test.holds(r, c) {
				t.Errorf("what this case is about does not hold:\n%+v\n%s", r.set.Spec, r.notes)
			}
		})
	}
}

func TestRefusesWhatCanNotWork(t *testing.T) {
	for values, reason := range map[string]string{
		"{replicas: 2}":                            "additional properties 'replicas' not allowed",
		"{image: {name: e}}":                       "additional properties 'name' not allowed",
		"{config: {admin_listen: 127.0.0.1:5001}}": "config.admin_listen must be on all addresses",
		"{config: {admin_listen: off}}":            "config.admin_listen must be on all addresses",
		"{config: {listen: null}}":                 "config.listen must be on all addresses",
		"{config: {data_dir: ./data}}":             "config.data_dir must be an absolute path",
		"{config: {index_dir: /srv/index}}":        "config.index_dir must be below",
		"{config: {index_dir: index}}":             "config.index_dir must be below",
		"{config: {index_dir: /srv/index}, extraVolumeMounts: [{name: i, mountPath: /srv/ind}]}":                  "config.index_dir must be below",
		"{resources: {limits: {memory: 1e9}}}":                                                                    "resources.limits.memory must be",
		"{persistence: {enabled: false}, config: {cache: {max_size: 0}}}":                                         "config.cache.max_size must be a size",
		"{secrets: [{name: hub}]}":                                                                                "got object, want string",
		"{config: {shutdown_grace: 30}}":                                                                          "missing unit",
		"{config: {cache: {max_size: 80%}}, persistence: {enabled: false}}":                                       "config.cache.max_size must be a size",
		"{config: {registries: {docker.io: {credentials: {username: ci, password: s3cret}}}}}":                    "docker.io.credentials.password would be readable",
		"{config: {registries: {a.io: {credentials: [{helper: x}, {username: ci, password: s3cret}]}}}}":          "a.io.credentials.password would be readable",
		"{config: {registries: {a.io: {endpoints: [{url: https://a.io, proxy: 'http://u:s3cret@proxy:3128'}]}}}}": "a proxy's password would be readable",
	} {
		if _, err := render(t, values); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: the error is %v, want %q", values, err, reason)
		}
	}
}

func TestIndexMayLieWhereverItCanBeWritten(t *testing.T) {
	for _, values := range []string{
		"{config: {index_dir: /var/lib/entrepot/records}}",
		"{config: {index_dir: /srv/index}, extraVolumes: [{name: i, emptyDir: {}}], extraVolumeMounts: [{name: i, mountPath: /srv/index}]}",
		"{config: {index_dir: /srv/index/a}, extraVolumes: [{name: i, emptyDir: {}}], extraVolumeMounts: [{name: i, mountPath: /srv/}]}",
	} {
		_, err := render(t, values)
		check(t, err)
	}
}

func TestReadmeListsEveryValue(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(dir, "values.yaml"))
	check(t, err)
	var values yamlnode.Node
	check(t, yamlnode.Unmarshal(text, &values))
	readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
	check(t, err)
	table := "| Value | Default | Meaning |\n| --- | --- | --- |\n" + strings.Join(rows(t, values.Content[0], ""), "")
	if _, got, _ := strings.Cut(string(readme), "## Values\n\n"); got != table {
		t.Errorf("the table of values in README.md is not that of values.yaml, which is:\n%s", table)
	}
}

// rows are the lines of the table for a mapping of values.yaml. Every key must have a comment that begins with --.
func rows(t *testing.T, mapping *yamlnode.Node, prefix string) (lines []string) {
	for i := 0; i < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		name := prefix + key.Value
		if strings.Contains(key.Value, ".") {
			name = prefix + strconv.Quote(key.Value)
		}
		comment, ok := strings.CutPrefix(key.HeadComment, "# -- ")
		if !ok {
			t.Errorf("values.yaml:%d: %s has no comment that begins with # --", key.Line, name)
		}
		if value.Kind == yamlnode.MappingNode && len(value.Content) > 0 {
			lines = append(lines, rows(t, value, name+".")...)
			continue
		}
		var decoded any
		check(t, value.Decode(&decoded))
		text, err := json.Marshal(decoded)
		check(t, err)
		lines = append(lines, fmt.Sprintf("| `%s` | `%s` | %s |\n", name, text, strings.ReplaceAll(comment, "\n# ", " ")))
	}
	return lines
}
