"""Data sets in other people's formats: one file a format, one function, `multiobj_data.exports.formats.export`.

Each format's module has what `multiobj_data.exports.formats.Format` says; a library that only one format needs is
imported inside its functions.
"""
