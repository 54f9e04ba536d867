package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fileWork does everything to files that Landlock tells apart, most of it where
// the default policy lets nobody.
const fileWork = `set -e
cat /srv/input > /dev/null
ls /srv/list > /dev/null
echo a >> /srv/log
mkdir /data/made
echo b > /data/made/new
echo c > /data/old-name
mv /data/old-name /data/new-name
rm /srv/unwanted
/srv/tool
cat /outside/missing 2> /dev/null || true
echo finished
`

func TestFilesObserved(t *testing.T) {
	w := newWorld(t)
	c := w.container(policy("files"), permissive, script(fileWork))
	for name, text := range map[string]string{
		"srv/input": "x", "srv/list/entry": "x", "srv/log": "x", "srv/unwanted": "x", "srv/tool": "#!/bin/sh\nexit 0\n",
	} {
		c.file(name, text)
	}
	o := c.run()
	if o.status != 0 || !strings.Contains(o.stdout, "finished") {
		t.Fatal(o)
	}
	c.awaitEnd()
	t.Log(w.auditLog(c))
}

// file puts a file into the container's image.
func (c *container) file(name, text string) {
	c.w.t.Helper()
	path := filepath.Join(c.rootfs(), name)
	must(c.w.t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(c.w.t, os.WriteFile(path, []byte(text), 0o755))
}
