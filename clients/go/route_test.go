package transparentllm

import (
	"crypto/tls"
	"errors"
	"strings"
	"testing"
)

// variables are an environment.
func variables(pairs ...string) environ {
	return func(name string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

func TestWhichProxyIsUsed(t *testing.T) {
	const far, near = "models.example.com:443", "127.0.0.1:50051"
	secure, plain := []Option{WithTLS(&tls.Config{})}, []Option(nil)
	with := func(proxy string, options ...Option) []Option { return append([]Option{WithProxy(proxy)}, options...) }
	told := variables("http_proxy", "http://p.example.com:3128")
	for name, c := range map[string]struct {
		target  string
		options []Option
		look    environ
		want    string
	}{
		"with TLS, far away":             {far, secure, told, "http://p.example.com:3128"},
		"in the clear":                   {far, plain, told, ""},
		"with TLS, this host":            {near, secure, told, ""},
		"with TLS, a private network":    {"10.1.2.3:1", secure, told, ""},
		"with TLS, a name of one label":  {"gpu-box:1", secure, told, ""},
		"with TLS, a name inside":        {"gpu.lan.:1", secure, told, ""},
		"with TLS, an odd address":       {"127.1:1", secure, told, ""},
		"with TLS, mapped":               {"[::ffff:10.0.0.1]:1", secure, told, ""},
		"with TLS, a link":               {"[fe80::1%eth0]:1", secure, told, ""},
		"with TLS, an address far away":  {"8.8.8.8:1", secure, told, "http://p.example.com:3128"},
		"asked for, this host":           {near, with("environment"), told, "http://p.example.com:3128"},
		"asked for by name":              {near, with("q.example.com"), told, "http://q.example.com:80"},
		"asked for by variable":          {near, plain, variables("TRANSPARENT_LLM_PROXY", "q:8"), "http://q:8"},
		"the variable says none":         {far, secure, variables("TRANSPARENT_LLM_PROXY", "none", "http_proxy", "p:1"), ""},
		"an empty variable says nothing": {far, secure, variables("TRANSPARENT_LLM_PROXY", "", "http_proxy", "p:1"), "http://p:1"},
		"the option says none":           {far, with("", secure...), told, ""},
		"the first that is set counts":   {far, secure, variables("https_proxy", "", "http_proxy", "p:1"), ""},
		"capitals of a CGI program":      {far, secure, variables("HTTP_PROXY", "p:1"), ""},
		"capitals":                       {far, secure, variables("HTTPS_PROXY", "p:1"), "http://p:1"},
		"a unix socket":                  {"unix:/run/x", with("q:8"), told, ""},
		"a proxy of another kind":        {far, secure, variables("http_proxy", "socks5://p:1"), ""},
		"no_proxy, a name":               {"a.models.example.com:1", with("q:8"), variables("no_proxy", "x, models.Example.com"), ""},
		"no_proxy, with stars":           {"a.models.example.com:1", with("q:8"), variables("NO_PROXY", "*.models.example.com"), ""},
		"no_proxy, another name":         {"notmodels.example.com:1", with("q:8"), variables("no_proxy", "models.example.com"), "http://q:8"},
		"no_proxy, another port":         {"models.example.com:1", with("q:8"), variables("no_proxy", "models.example.com:2"), "http://q:8"},
		"no_proxy, this port":            {"models.example.com:2", with("q:8"), variables("no_proxy", "models.example.com:2"), ""},
		"no_proxy, a block":              {"8.8.8.8:2", with("q:8"), variables("no_proxy", "8.8.0.0/16"), ""},
		"no_proxy, an address":           {"[2001:db8::1]:2", with("q:8"), variables("no_proxy", "2001:db8::1"), ""},
		"no_proxy, all":                  {far, with("q:8"), variables("no_proxy", "*"), ""},
		"dns":                            {"dns:///" + far, with("q:8"), told, "http://q:8"},
	} {
		config, err := configured([]string{c.target}, c.options)
		if err != nil {
			t.Fatal(err)
		}
		got, err := routeTo(config, c.look)
		if err != nil || (got.proxy == nil) != (c.want == "") || (got.proxy != nil && got.name() != c.want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		if got.proxy != nil && (got.endpoint != strings.TrimPrefix(c.target, "dns:///")) {
			t.Errorf("%s: it is asked for %s", name, got.endpoint)
		}
	}
}

func TestProxiesThatCanNeverBeRight(t *testing.T) {
	for _, proxy := range []string{"https://p:1", "socks5://p", "http://", "http://p:0", "http://p:99999", "http://p:x", "http://p/path", "http://p?x",
		"http://p q", "http://p\n", "http://secret:word@p:1/path", "http://secret:word@p:99999", "http://secret:word%@p"} {
		config, err := configured([]string{"127.0.0.1:1"}, []Option{WithProxy(proxy)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := routeTo(config, variables()); !errors.Is(err, ErrInvalidRequest) || strings.Contains(err.Error(), "word") {
			t.Errorf("%q: %v", proxy, err)
		}
		config.proxy = "environment"
		if _, err := routeTo(config, variables("all_proxy", proxy)); !errors.Is(err, ErrInvalidRequest) || !strings.Contains(err.Error(), "all_proxy") {
			t.Errorf("%q of the environment: %v", proxy, err)
		}
	}
	config, _ := configured([]string{"ipv4:10.0.0.1:1,10.0.0.2:1"}, []Option{WithProxy("p:1")})
	if _, err := routeTo(config, variables()); !errors.Is(err, ErrInvalidRequest) {
		t.Errorf("several addresses: %v", err)
	}
}
