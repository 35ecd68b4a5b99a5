from scripts import check_site


def test_broken_links_and_external_files_are_found(tmp_path):
    (tmp_path / "guide").mkdir()
    (tmp_path / "guide" / "index.html").write_text('<h1 id="top">A guide</h1><a href="../#end">to the end</a>')
    good = '<a href="guide/#top">a</a><a href="https://example.org/x">b</a><p id="end"></p><img src="a.png">'
    (tmp_path / "index.html").write_text(good)
    assert check_site.problems(tmp_path) == []
    bad = '<a href="gone/">c</a><a href="guide/#gone">d</a><script src="https://cdn.example/x.js"></script>'
    bad += '<link rel="stylesheet" href="//fonts.example/f.css">'
    (tmp_path / "index.html").write_text(good + bad)
    assert check_site.problems(tmp_path) == [
        "index.html loads https://cdn.example/x.js",
        "index.html loads //fonts.example/f.css",
        "index.html links to gone/, which does not exist",
        "index.html links to guide/#gone, which does not have that anchor",
    ]
