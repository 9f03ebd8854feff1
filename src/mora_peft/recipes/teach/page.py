def write_page(result, output):
    return output
