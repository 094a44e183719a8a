package fetch_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"pecd/signer/fetch"
	"pecd/signer/fetch/fetchtest"
)

func TestGet(t *testing.T) {
	s := fetchtest.New(t)
	s.Publish("/list", []byte("one"))
	c := fetch.New(fetch.Options{})
	a, err := c.Get(t.Context(), s.URL+"/list", fetch.Validators{})
	if err != nil || string(a.Body) != "one" || a.NotModified || a.ETag == "" {
		t.Fatalf("%+v, %v", a, err)
	}
	again, err := c.Get(t.Context(), s.URL+"/list", a.Validators)
	if err != nil || !again.NotModified || again.Body != nil {
		t.Fatalf("the same version: %+v, %v", again, err)
	}
	s.Publish("/list", []byte("two"))
	if a, err = c.Get(t.Context(), s.URL+"/list", a.Validators); err != nil || string(a.Body) != "two" {
		t.Fatalf("another version: %+v, %v", a, err)
	}
}

// TestLastModified: a server without entity tags.
func TestLastModified(t *testing.T) {
	s := fetchtest.New(t)
	date := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	s.Handle("/list", func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", date, strings.NewReader("one"))
	})
	c := fetch.New(fetch.Options{})
	a, err := c.Get(t.Context(), s.URL+"/list", fetch.Validators{})
	if err != nil || a.LastModified != date.Format(http.TimeFormat) {
		t.Fatalf("%+v, %v", a, err)
	}
	if a, err = c.Get(t.Context(), s.URL+"/list", a.Validators); err != nil || !a.NotModified {
		t.Fatalf("%+v, %v", a, err)
	}
}

func TestPost(t *testing.T) {
	s := fetchtest.New(t)
	s.Handle("/ocsp", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, "%s %s %s", r.Method, r.Header.Get("Content-Type"), body)
	})
	a, err := fetch.New(fetch.Options{}).Post(t.Context(), s.URL+"/ocsp", "application/ocsp-request", []byte("who?"))
	if err != nil || string(a.Body) != "POST application/ocsp-request who?" {
		t.Fatalf("%+v, %v", a, err)
	}
}

// hostile are the ways in which a server gives no file.
var hostile = map[string]struct {
	handler http.HandlerFunc
	want    error // nil: any
}{
	"server error": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, fetch.ErrStatus},
	"not found":    {http.NotFound, fetch.ErrStatus},
	"partial":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(206) }, fetch.ErrStatus},
	"304 unasked":  {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(304) }, fetch.ErrStatus},
	"empty":        {func(http.ResponseWriter, *http.Request) {}, fetch.ErrStatus},
	"large": {func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1001")
		w.Write(make([]byte, 1001))
	}, fetch.ErrTooLarge},
	"large in chunks": {func(w http.ResponseWriter, _ *http.Request) {
		for range 11 {
			w.Write(make([]byte, 100))
			w.(http.Flusher).Flush()
		}
	}, fetch.ErrTooLarge},
	"endless": {func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 100)); err != nil {
				return
			}
		}
	}, fetch.ErrTooLarge},
	"truncated": {func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		w.Write(make([]byte, 50))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}, io.ErrUnexpectedEOF},
	"torn chunks": {func(w http.ResponseWriter, _ *http.Request) {
		w.Write(make([]byte, 50))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}, io.ErrUnexpectedEOF},
	"silent": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, context.DeadlineExceeded},
	"stuck": {func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("begin"))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}, context.DeadlineExceeded},
	"long header": {func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", strings.Repeat("x", 100<<10))
		w.Write([]byte("body"))
	}, nil},
	"to itself": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }, fetch.ErrRedirect},
	"to a file": {func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "file:///etc/hostname", http.StatusFound)
	}, fetch.ErrRedirect},
	"to a user": {func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://a:b@"+r.Host+"/", http.StatusFound)
	}, fetch.ErrRedirect},
	"nowhere": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(302) }, fetch.ErrStatus},
}

func TestGetRefuses(t *testing.T) {
	s := fetchtest.New(t)
	for name, tc := range hostile {
		t.Run(name, func(t *testing.T) {
			path := "/" + strings.ReplaceAll(name, " ", "-")
			s.Handle(path, tc.handler)
			c := fetch.New(fetch.Options{MaxSize: 1000, Timeout: 10 * time.Second})
			if errors.Is(tc.want, context.DeadlineExceeded) {
				c = fetch.New(fetch.Options{MaxSize: 1000, Timeout: 50 * time.Millisecond})
			}
			a, err := c.Get(t.Context(), s.URL+path, fetch.Validators{})
			if err == nil || tc.want != nil && !errors.Is(err, tc.want) || a != nil {
				t.Errorf("%v, %v; want %v", a, err, tc.want)
			}
		})
	}
}

// TestSize: what is exactly as large as allowed is not too large.
func TestSize(t *testing.T) {
	s := fetchtest.New(t)
	s.Publish("/f", make([]byte, 1000))
	a, err := fetch.New(fetch.Options{MaxSize: 1000}).Get(t.Context(), s.URL+"/f", fetch.Validators{})
	if err != nil || len(a.Body) != 1000 {
		t.Error(err)
	}
}

// TestCompressed: nothing is unpacked on the way, and nobody is asked to pack.
func TestCompressed(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(make([]byte, 1<<20))
	z.Close()
	s := fetchtest.New(t)
	s.Handle("/f", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "" {
			t.Errorf("Accept-Encoding %q", r.Header.Get("Accept-Encoding"))
		}
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(packed.Bytes())
	})
	a, err := fetch.New(fetch.Options{}).Get(t.Context(), s.URL+"/f", fetch.Validators{})
	if err != nil || !bytes.Equal(a.Body, packed.Bytes()) {
		t.Errorf("%v", err)
	}
}

func TestRedirect(t *testing.T) {
	s, other := fetchtest.New(t), fetchtest.New(t)
	other.Publish("/f", []byte("body"))
	s.Handle("/f", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+"/f", http.StatusMovedPermanently)
	})
	a, err := fetch.New(fetch.Options{}).Get(t.Context(), s.URL+"/f", fetch.Validators{})
	if err != nil || string(a.Body) != "body" {
		t.Errorf("%v", err)
	}
	if _, err := fetch.New(fetch.Options{Redirects: -1}).Get(t.Context(), s.URL+"/f", fetch.Validators{}); !errors.Is(err, fetch.ErrRedirect) {
		t.Errorf("no redirects allowed: %v", err)
	}
}

func TestURLs(t *testing.T) {
	c := fetch.New(fetch.Options{})
	strict := fetch.New(fetch.Options{OnlyHTTPS: true})
	for url, want := range map[string]struct{ any, https bool }{
		"http://a.example/x": {true, false}, "https://a.example/x": {true, true}, "http://[::1]:80/": {true, false},
		"file:///etc/passwd": {}, "ftp://a.example/": {}, "ldap://a.example/cn=x": {}, "/x": {}, "": {}, "http:": {},
		"http:///x": {}, "http://user@a.example/": {}, "http://u:p@a.example/": {}, "http:a.example": {}, "http://a.example/%zz": {},
		"http://a.example/\x00": {}, "http://:80/": {}, "https://a.example/" + strings.Repeat("x", 3000): {},
	} {
		for client, ok := range map[*fetch.Client]bool{c: want.any, strict: want.https} {
			if err := client.Check(url); (err == nil) != ok || err != nil && !errors.Is(err, fetch.ErrURL) {
				t.Errorf("%.100q: %v", url, err)
			}
		}
	}
	if _, err := c.Get(t.Context(), "file:///etc/hostname", fetch.Validators{}); !errors.Is(err, fetch.ErrURL) {
		t.Errorf("a file: %v", err)
	}
}

// TestClientCertificate: the server demands it, and a renewed one is used
// without a new client.
func TestClientCertificate(t *testing.T) {
	ca := fetchtest.NewAuthority(t)
	s := fetchtest.NewTLS(t, ca)
	s.Handle("/who", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	})
	certFile, keyFile := ca.Files(t, "alfa")
	c := fetch.New(fetch.Options{Roots: ca.Pool(), OnlyHTTPS: true, Certificate: fetch.Files(certFile, keyFile)})
	who := func() string {
		t.Helper()
		a, err := c.Get(t.Context(), s.URL+"/who", fetch.Validators{})
		if err != nil {
			t.Fatal(err)
		}
		return string(a.Body)
	}
	if got := who(); got != "alfa" {
		t.Errorf("the server saw %q", got)
	}
	nextCert, nextKey := ca.Files(t, "alfa, renewed")
	for from, to := range map[string]string{nextCert: certFile, nextKey: keyFile} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	if got := who(); got != "alfa, renewed" {
		t.Errorf("the server saw %q", got)
	}
}

func TestTLSRefuses(t *testing.T) {
	ca, other := fetchtest.NewAuthority(t), fetchtest.NewAuthority(t)
	s := fetchtest.NewTLS(t, ca)
	s.Publish("/f", []byte("body"))
	plain := fetchtest.New(t)
	plain.Publish("/f", []byte("body"))
	s.Handle("/down", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, plain.URL+"/f", http.StatusFound) })
	away := fetchtest.NewTLS(t, ca)
	away.Publish("/f", []byte("body"))
	s.Handle("/away", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, away.URL+"/f", http.StatusFound) })
	s.Handle("/near", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/f", http.StatusFound) })
	mine := func() (*tls.Certificate, error) { c := ca.Issue(t, "alfa"); return &c, nil }
	foreign := func() (*tls.Certificate, error) { c := other.Issue(t, "alfa"); return &c, nil }
	broken := errors.New("no key today")
	at := func(when time.Time) func() time.Time { return func() time.Time { return when } }
	for name, tc := range map[string]struct {
		o    fetch.Options
		path string
		want error
		good bool
	}{
		"good":                {o: fetch.Options{Roots: ca.Pool(), Certificate: mine}, path: "/f", good: true},
		"to the same host":    {o: fetch.Options{Roots: ca.Pool(), Certificate: mine}, path: "/near", good: true},
		"no certificate":      {o: fetch.Options{Roots: ca.Pool()}, path: "/f"},
		"foreign certificate": {o: fetch.Options{Roots: ca.Pool(), Certificate: foreign}, path: "/f"},
		"unreadable":          {o: fetch.Options{Roots: ca.Pool(), Certificate: func() (*tls.Certificate, error) { return nil, broken }}, path: "/f", want: broken},
		"other authority":     {o: fetch.Options{Roots: other.Pool(), Certificate: mine}, path: "/f"},
		"after its end":       {o: fetch.Options{Roots: ca.Pool(), Certificate: mine, Now: at(fetchtest.NotAfter.Add(time.Hour))}, path: "/f"},
		"before its begin":    {o: fetch.Options{Roots: ca.Pool(), Certificate: mine, Now: at(fetchtest.NotBefore.Add(-time.Hour))}, path: "/f"},
		"from https to http":  {o: fetch.Options{Roots: ca.Pool(), Certificate: mine}, path: "/down", want: fetch.ErrRedirect},
		"to another host":     {o: fetch.Options{Roots: ca.Pool(), Certificate: mine}, path: "/away", want: fetch.ErrRedirect},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := fetch.New(tc.o).Get(t.Context(), s.URL+tc.path, fetch.Validators{})
			if (err == nil) != tc.good || tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
		})
	}
}

// TestDowngrade: a redirect does not lead away from TLS, on the same host or
// another.
func TestDowngrade(t *testing.T) {
	plain := fetchtest.New(t)
	plain.Publish("/f", []byte("body"))
	s := httptest.NewTLSServer(http.RedirectHandler(plain.URL+"/f", http.StatusFound))
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	if _, err := fetch.New(fetch.Options{Roots: roots}).Get(t.Context(), s.URL, fetch.Validators{}); !errors.Is(err, fetch.ErrRedirect) {
		t.Error(err)
	}
}

func TestFilesRefuses(t *testing.T) {
	ca := fetchtest.NewAuthority(t)
	cert, key := ca.Files(t, "alfa")
	_, foreignKey := ca.Files(t, "beta")
	open := t.TempDir() + "/open.key"
	large := t.TempDir() + "/large.pem"
	data, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{open: data, large: make([]byte, 2<<20)} {
		if err := os.WriteFile(name, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct{ cert, key, want string }{
		"missing certificate": {cert + "x", key, "no such file"},
		"missing key":         {cert, key + "x", "no such file"},
		"open key":            {cert, open, "chmod 600"},
		"foreign key":         {cert, foreignKey, "private key does not match"},
		"large":               {large, key, "too large"},
		"swapped":             {key, cert, ""},
	} {
		if _, err := fetch.Files(tc.cert, tc.key)(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

// TestCancel: a fetch ends with its context.
func TestCancel(t *testing.T) {
	s := fetchtest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.Handle("/f", func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	if _, err := fetch.New(fetch.Options{}).Get(ctx, s.URL+"/f", fetch.Validators{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
