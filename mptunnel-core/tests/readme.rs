// SPDX-License-Identifier: BSD-2-Clause
//! What the README shows is what the tree has.

#[test]
fn the_code_in_the_readme_is_the_example_file() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let read = |file: &str| std::fs::read_to_string(format!("{root}/{file}")).unwrap();
    let readme = read("README.md");
    let mut shown = 0;
    for block in readme.split("<!-- ").skip(1) {
        let (file, rest) = block.split_once(" -->\n```").expect("a marker, then its code");
        let (_language, rest) = rest.split_once('\n').expect("the code in lines of its own");
        let (code, _) = rest.split_once("\n```\n").expect("the end of the code");
        assert_eq!(format!("{code}\n"), read(file), "{file}");
        shown += 1;
    }
    assert_eq!(shown, 2);
}
